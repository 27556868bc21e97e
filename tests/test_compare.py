"""`stages.compare` on a repository whose runs are written by hand: Git, experiments, cache and remote are real."""

import base64
import contextlib
import hashlib
import html
import json
import re
import shutil
import statistics
import time
from pathlib import Path
from typing import Any

import pytest
from finished_runs import ANSWERS, CLOSING, DIALOGUES, Project

from stages import compare
from stages.page import compare_inputs, compare_settings, line_chart, text_diff
from stages.page.i18n import dictionary
from stages.page.lock import Lock
from stages.runtime.errors import UserError

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]  # in dependencies of DVC


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """`first` is a tag; all others are experiments from there, but for the commit `unfinished`."""
    project = Project(tmp_path_factory.mktemp("project"))
    project.run()
    project.record()
    project.commit("first")
    for name, changes in {
        "kl": {"ppo__kl_coef": 0.1, "closing": 0.8},
        "kl-seed-2": {"ppo__kl_coef": 0.1, "closing": 0.8, "seed": 2},
        "seed-2": {"seed": 2},
        "judged-anew": {"rm__learning_rate": 0.01, "reward_model": "two"},
        "twin": {},
        "fewer": {"dialogues": 10},
    }.items():
        project.run(**changes)
        project.record()
        project.experiment(name)
    project.run()
    project.record()
    project.run(ppo__kl_coef=0.5)
    with contextlib.chdir(project.folder):
        project.git("checkout", "-q", "-b", "later")
        project.git("commit", "-qam", "parameters without a run")
        project.git("tag", "unfinished")
        project.git("checkout", "-q", "main")
    project.run()
    project.record()
    return project


class Compare:
    """Runs the command in the project, and gives what it prints."""

    def __init__(self, project: Project, capsys: pytest.CaptureFixture[str]) -> None:
        self.project, self.capsys = project, capsys

    def __call__(self, *revs: str, **options: Any) -> str:
        with contextlib.chdir(self.project.folder):
            compare.main(list(revs), **options)
        return self.capsys.readouterr().out

    def error(self, *revs: str) -> str:
        with pytest.raises(SystemExit):
            self(*revs)
        error = self.capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1, error
        return error


@pytest.fixture
def run(project: Project, capsys: pytest.CaptureFixture[str]) -> Compare:
    return Compare(project, capsys)


def cells(text: str, name: str) -> list[str]:
    """The cells of the row that begins with `name`."""
    row = next(line for line in text.splitlines() if line.startswith(f"| {name} |"))
    return [cell.strip() for cell in row.strip("|").split(" | ")][1:]


def scores(project: Project, metric: str) -> list[float]:
    lines = (project.folder / "reports/evaluation/ppo.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)[metric] for line in lines]


def test_a_commit_and_an_experiment(project: Project, run: Compare) -> None:
    before = project.git("status", "--porcelain"), project.git("rev-parse", "HEAD")
    text = run("first", "kl")
    assert text.index("ppo.kl_coef") < text.index("ROUGE-1"), "the changed parameters come first"
    assert cells(text, "`ppo.kl_coef`") == ["`0.3`", "`0.1`"]
    assert "learning_rate" not in text and "temperature" not in text
    value, _, difference = cells(text, "Length, characters")
    assert value == f"{statistics.fmean(scores(project, 'response_length')):.1f}"
    assert re.fullmatch(r"\+\d\.\d \(\+\d\.\d\u00a0…\u00a0\+\d\.\d\) \*\*more\*\*", difference)
    assert cells(text, "ROUGE-L")[2].endswith("**worse**")
    assert cells(text, "Ended by itself, %")[2].endswith("can't tell")
    assert "one run of each setting" in text
    assert before == (project.git("status", "--porcelain"), project.git("rev-parse", "HEAD"))


def test_the_difference_is_the_mean_over_the_questions(project: Project, run: Compare) -> None:
    with contextlib.chdir(project.folder):
        found, _ = compare.read(["first", "kl"], "reports")
    before, after = (each.scores["rouge-l"] for each in found)
    mean = statistics.fmean(b - a for a, b in zip(before, after, strict=True) if a is not None and b is not None)
    shown = cells(run("first", "kl"), "ROUGE-L")[2].split(" ")[0]
    assert float(shown.replace("−", "-")) == pytest.approx(mean, abs=0.005)


def test_one_run_is_compared_with_the_workspace(project: Project, run: Compare) -> None:
    assert run("kl").splitlines()[0] == "| Parameter | kl | workspace |"


def test_runs_that_differ_in_their_seed_are_one_setting(run: Compare) -> None:
    text = run("first", "seed-2", "kl", "kl-seed-2")
    assert text.splitlines()[0] == "| Parameter | first (+1 more) | kl (+1 more) |"
    assert "`seed`" not in text, "a seed is no changed parameter here"
    each = [float(cells(text, name)[1]) for name in ("first", "seed-2")]
    assert [cells(text, name)[0] for name in ("first", "seed-2", "kl", "kl-seed-2")] == ["`1`", "`2`", "`1`", "`2`"]
    shown = re.fullmatch(r"([\d.]+) \(± ([\d.]+), n = 2\)", cells(text, "ROUGE-1")[0])
    assert shown
    assert float(shown[1]) == pytest.approx(statistics.fmean(each), abs=0.01)
    assert float(shown[2]) == pytest.approx(statistics.stdev(each), abs=0.01)
    assert cells(text, "ROUGE-1")[2].endswith("can't tell"), "two seeds of each tell little"


def test_seeds_alone_are_compared_when_nothing_else_is(run: Compare) -> None:
    """One setting, nothing to compare it with: its runs are shown, and no difference is claimed."""
    text = run("first", "seed-2")
    assert cells(text, "first")[0] == "`1`" and "difference" not in text.splitlines()[2]


def test_stacks_of_one_revision(run: Compare) -> None:
    text = run("first:sft", "first:ppo")
    assert cells(text, "stack of adapters") == ["`sft`", "`ppo`"]
    assert "kl_coef" not in text, "sft has no use for it, so it was not changed"


def test_rewards_of_two_reward_models_are_not_compared(run: Compare) -> None:
    text = run("first", "judged-anew")
    assert cells(text, "Reward")[2] == "– can't tell: another reward model"
    assert "…" in cells(text, "ROUGE-1")[2]


def test_what_did_not_end_and_what_is_there_twice_is_left_out(run: Compare) -> None:
    text = run("first", "unfinished", "twin", "kl")
    assert text.splitlines()[0] == "| Parameter | first | kl |"
    assert "Left out: unfinished: stage `ppo` has not run since its parameters or inputs changed." in text
    assert "Left out: twin is identical to first, down to the last number." in text
    assert "nothing is left to compare" in run.error("first", "twin")


def test_an_experiment_that_failed(run: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "queue", lambda: {"sorry-goal": "Failed"})
    assert "Left out: sorry-goal: the experiment is failed." in run("first", "sorry-goal", "kl")


def test_a_queue_that_a_worker_writes_meanwhile(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo.experiments.queue.celery import LocalCeleryQueue

    looks: list[float] = []

    def half_written(queue: Any) -> Any:
        return json.loads("" if len(looks) < 2 else '[{"name": "seed-1", "status": "Running"}]')

    monkeypatch.setattr(LocalCeleryQueue, "status", half_written)
    monkeypatch.setattr(time, "sleep", looks.append)
    monkeypatch.chdir(project.folder)
    assert compare.queue() == {"seed-1": "Running"} and len(looks) == 2
    monkeypatch.setattr(LocalCeleryQueue, "status", lambda queue: json.loads("{"))
    with pytest.raises(UserError, match="queue stop --kill"):
        compare.queue()


def test_a_mistake_is_one_line(run: Compare, project: Project) -> None:
    assert "answered 20 and 60 test questions" in run.error("first", "fewer")
    assert "nosuch: no commit, branch, tag or experiment" in run.error("first", "nosuch")
    assert "no stack `rm`, only base, sft, ppo" in run.error("first", "first:rm")
    elsewhere = project.folder.parent / "elsewhere"
    elsewhere.mkdir()
    with contextlib.chdir(elsewhere), pytest.raises(SystemExit):
        compare.main(["first", "kl"])
    assert "not a checkout of this project" in run.capsys.readouterr().err


def test_other_questions_of_the_same_number(project: Project) -> None:
    with contextlib.chdir(project.folder):
        [found], _ = compare.read(["first"], "reports")
    changed = [found.questions[0]._replace(label="另一个回答"), *found.questions[1:]]
    with pytest.raises(Exception, match="different test questions, from number 1 on"):
        compare_settings.same_questions([found, found._replace(name="other", questions=changed)])


def test_files_that_only_the_remote_has(project: Project, run: Compare, tmp_path: Path) -> None:
    cache = project.folder / ".dvc/cache"
    expected = run("first", "kl")
    shutil.move(cache, tmp_path / "cache")
    try:
        assert "is in no cache and no remote" in run.error("first", "kl")
        project.text(
            ".dvc/config.local", f"[core]\n    remote = store\n['remote \"store\"']\n    url = {tmp_path}/cache\n"
        )
        assert run("first", "kl") == expected
    finally:
        (project.folder / ".dvc/config.local").unlink(missing_ok=True)
        shutil.rmtree(cache, ignore_errors=True)
        shutil.move(tmp_path / "cache", cache)


@pytest.fixture(scope="module")
def page(project: Project) -> str:
    to = project.folder.parent / "compare.html"
    with contextlib.chdir(project.folder):
        compare.main(["first", "kl"], page=to)
    return to.read_text(encoding="utf-8")


def test_page_needs_nothing_and_lets_nothing_in(page: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1])  # type: ignore[index]
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    assert allowed == [base64.b64encode(hashlib.sha256(each.encode()).digest()).decode() for each in scripts]
    assert "default-src 'none'" in policy
    assert not re.search(r"(src|href)=\"(?!#)", page), "asks for something outside of itself"
    assert len(page.encode()) < 1_000_000


def test_page_shows_all_answers_the_most_changed_first(page: str) -> None:
    articles = re.findall(r'<article class="row".*?</article>', page, re.S)
    assert len(articles) == 2 * DIALOGUES
    changed = [float(re.search(r'data-changed="([\d.]+)"', each)[1]) for each in articles]  # type: ignore[index]
    assert changed == sorted(changed, reverse=True) and changed[0] > 0 == changed[-1]
    assert f"<mark>{CLOSING}</mark>" in articles[0]
    assert "<mark>" not in articles[-1]
    assert any(ANSWERS[1] in each for each in articles)


def test_page_draws_what_differs_and_names_what_does_not(page: str) -> None:
    drawn = re.findall(r'<figure><h3><span class="say" lang="en">([^<]+)', page)
    assert drawn == ["PPO: KL from the SFT model, nats per answer"]
    assert page.count('class="line"') == 2
    assert "The same in all runs:" in page and "SFT: training loss" in page


def test_a_text_can_not_become_a_tag(project: Project, tmp_path: Path) -> None:
    with contextlib.chdir(project.folder):
        found, _ = compare.read(["first", "kl"], "reports")
    from stages.page import compare_markdown, compare_page

    evil = "</script><script>alert(1)</script>"
    runs = [each._replace(name=f"{evil}|{at}", answers=[evil + each.answers[0], *each.answers[1:]]) for at, each in
            enumerate(found)]  # fmt: skip
    compared = compare_settings.compare(compare_settings.group(runs))
    assert "<script>alert" not in compare_page.render(compared, [], "en").decode()
    text = compare_markdown.markdown(compared, [], "en")
    assert "<script>" not in text and "\\|0" in text


def test_every_sentence_is_there_in_both_languages(run: Compare) -> None:
    chinese = run("first", "kl", "judged-anew", "unfinished", "twin", language="zh")
    assert "无法判断" in chinese and "已略去" in chinese and "can't" not in chinese
    for key, texts in dictionary().items():
        if key.startswith("compare."):
            assert set(texts) == {"en", "zh"} and all(texts.values())


def test_code_data_and_environment_are_told_apart() -> None:
    run = compare_inputs.Run(
        "a", "ppo", {"seed": "1", "ppo.gamma": "1.0"}, {"stages/rl": "1" * 32, "data/sample": "2" * 32}, "judge",
        {"cpu": "one"}, [], [], {}, {},
    )  # fmt: skip
    other = run._replace(name="b", sources={"stages/rl": "3" * 32, "data/sample": "4" * 32}, environment={"cpu": "two"})
    changes = compare_settings.changes(compare_settings.group([run, other]))
    assert [(change.kind, change.key) for change in changes] == [
        ("data", "data/sample"), ("code", "stages/rl"), ("environment", "cpu"),
    ]  # fmt: skip
    assert len(compare_settings.group([run, run._replace(name="c", params={"seed": "2", "ppo.gamma": "1.0"})])) == 1
    assert len(compare_settings.group([run, run._replace(name="c", model="sft")])) == 2


def test_lock_of_a_run_that_broke_off() -> None:
    document: dict[str, Any] = {
        "stages": {
            "sft": {"params": {"params.yaml": {"data.seed": 7, "sft": {"r": 4}}},
                    "deps": [{"path": "stages/sft.py", "md5": "c"}], "outs": [{"path": "models/sft", "md5": "a"}]},
            "ppo": {"params": {"params.yaml": {"seed": 1}}, "deps": [{"path": "models/sft", "md5": "a"}],
                    "outs": [{"path": "models/ppo", "md5": "b"}, {"path": "reports/ppo", "md5": "d"}]},
        }
    }  # fmt: skip
    lock = Lock(document)
    stages = lock.upstream("ppo")
    assert stages == ["sft", "ppo"]
    assert lock.maker("reports/ppo/curve.csv") == "ppo" and lock.maker("data/sample") is None
    assert lock.sections(stages) == {"data.seed": 7, "sft": {"r": 4}, "seed": 1}
    assert lock.sources(stages) == {"stages/sft.py": "c"}
    params = {"data": {"seed": 7, "dialogues": "x"}, "sft": {"r": 4}, "seed": 1}
    assert lock.unfinished(stages, params) is None
    assert lock.unfinished(stages, params | {"sft": {"r": 8}}) == "sft"
    for other in ({"seed": 8}, {}, None):
        assert lock.unfinished(stages, params | {"data": other}) == "sft"
    document["stages"]["sft"]["outs"][0]["md5"] = "trained anew"
    assert lock.unfinished(stages, params) == "ppo"


def test_text_difference() -> None:
    found = text_diff.difference("多喝水，休息。", "多喝水，去医院。")
    assert [part.text for part in found.after if part.differs] == ["去医院"]
    assert [part.text for part in found.before if part.differs] == ["休息"]
    assert found.share == pytest.approx(1 - 2 * 5 / 15)
    assert text_diff.difference("a", "a").share == 0 and text_diff.difference("", "") == ([], [], 0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 9, [0, 2, 4, 6, 8, 10]),
        (-0.13, 0.3, [-0.2, -0.1, 0, 0.1, 0.2, 0.3]),
        (0, 1e-6, [0, 2e-7, 4e-7, 6e-7, 8e-7, 1e-6]),
        (5, 5, [5]),
    ],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert line_chart.ticks(low, high, 5) == pytest.approx(expected)


def test_a_gap_breaks_a_line() -> None:
    line = line_chart.Line("run", 0, line_chart.segments([1, 2, 3, 4], [1.0, 2.0, None, 4.0]))
    drawn = line_chart.draw([line])
    assert drawn.count('<path class="line"') == 1 and drawn.count("<circle") == 1
    assert line_chart.draw([]) == ""
