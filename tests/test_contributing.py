"""CONTRIBUTING.md is followed to the letter, in a copy of the repository in which the smallest run has ended."""

import json
import re
import shutil
from pathlib import Path

import pytest
from checkouts import at_work_in, git, repro, run
from imports import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture
def copy(smallest: Path, tmp_path: Path) -> Path:
    """A copy of the finished checkout, with the same cache."""
    return Path(shutil.copytree(smallest, tmp_path / "copy", symlinks=True, ignore=shutil.ignore_patterns("cache")))


def examples(title: str) -> list[tuple[str, str]]:
    """The code blocks below a heading, as where each one goes (its first line) and what goes there."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    part = text.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = re.findall(r"^```(?:python|yaml|gitignore)\n# ([^\n]+)\n(.*?)^```", part, re.S | re.M)
    assert found, f"no examples below {title}"
    return found


def follow(copy: Path, title: str) -> None:
    for where, code in examples(title):
        place, _, name = where.rpartition(" of ")
        file = copy / name
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        if place == "all":
            assert not text
            text = code
        elif place == "at the end":
            text = f"{text.rstrip()}\n{chr(10) * 2 if file.suffix == '.py' else ''}{code}"
        elif place.startswith("before "):
            text = put_before(text, re.compile(rf"^{place.removeprefix('before ')} = ", re.M), f"{code}\n\n")
        elif file.suffix == ".yaml":
            text = put_after(text, re.compile(rf"^{place.removeprefix('into ')}:[^\n]*\n", re.M), code)
        elif place.startswith("into class "):
            text = put_after(text, re.compile(rf"^class {place.removeprefix('into class ')}\([^\n]*\n", re.M), code)
        else:
            opened = re.compile(rf"^{place.removeprefix('into ')}\b[^\n]*= [({{]\n", re.M)
            text = put_after(text, opened, code)
        file.write_text(text, encoding="utf-8")


def put_after(text: str, pattern: re.Pattern[str], code: str) -> str:
    found = pattern.search(text)
    assert found, f"no {pattern.pattern} there"
    return text[: found.end()] + code + text[found.end() :]


def put_before(text: str, pattern: re.Pattern[str], code: str) -> str:
    found = pattern.search(text)
    assert found, f"no {pattern.pattern} there"
    return text[: found.start()] + code + text[found.start() :]


def pytest_in(copy: Path, arguments: str) -> None:
    with at_work_in(copy):
        run(f"python -m pytest {arguments}", copy)


def test_add_a_parameter(copy: Path) -> None:
    follow(copy, "Add a parameter")
    with at_work_in(copy):
        run("python -m stages.parameters > docs/parameters.md", copy)
    assert "`repetition_order` | `4` |" in (copy / "docs/parameters.md").read_text(encoding="utf-8")
    assert repro(copy, "--dry", "evaluate") == ["evaluate"]

    git(copy, "checkout", "--quiet", "params.yaml")  # without the entry, a default would be a number that DVC can't see
    with at_work_in(copy), pytest.raises(AssertionError, match=r"key `evaluate\.repetition_order` is missing"):
        run("dvc repro evaluate", copy)


def test_add_a_metric(copy: Path) -> None:
    follow(copy, "Add a metric of the answers")
    assert repro(copy) == ["evaluate", "report"]
    headline = json.loads((copy / "reports/metrics.json").read_text(encoding="utf-8"))
    for model in ("base", "sft", "ppo"):
        rows = (copy / "reports/evaluation" / f"{model}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        asked = [json.loads(row)["questions_asked"] for row in rows]
        assert headline[model]["questions_asked"] == pytest.approx(sum(asked) / len(asked), abs=1e-3)
    assert "Questions asked back" in (copy / "reports/index.html").read_text(encoding="utf-8")
    with at_work_in(copy):
        printed = run("python -m stages.results", copy)
    assert "Questions asked back" in printed
    answers = [json.loads(line) for line in (copy / "reports/answers/ppo.jsonl").read_text("utf-8").splitlines()]
    second = [answer for answer in answers if not answer["history"]][1]  # the README shows the first
    assert f"question  {second['instruction']}" in printed and f"reference {second['label']}" in printed
    assert repro(copy) == []


def test_add_a_format(copy: Path) -> None:
    follow(copy, "Add a format of your data")
    records = [{"complaint": f"发烧{n}天了，怎么办？", "advice": f"多喝水，休息{n}天。"} for n in range(30)]
    (copy / "clinic.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    with at_work_in(copy):
        printed = run("python -m stages.import_data --from clinic.jsonl --name ward", copy)
    assert "complaint and advice" in printed
    assert (copy / "profiles/ward.yaml").is_file()


def test_add_a_stage(copy: Path) -> None:
    follow(copy, "Add a stage")
    assert repro(copy) == ["longest", "report"]  # the report reads params.yaml, which has a section more
    rows = (copy / "reports/longest.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
    lengths = [len(json.loads(row)["predict"]) for row in rows]
    assert len(lengths) == 3 and lengths == sorted(lengths, reverse=True)
    assert repro(copy) == []
    pytest_in(copy, "tests/test_graph.py -k 'longest or all_stages'")
    pytest_in(copy, "tests/test_rooms.py -k 'longest or one_way'")


def test_accept_a_change_that_can_not_change_a_result(copy: Path) -> None:
    file = copy / "stages/metrics/text_metrics.py"
    file.write_text(file.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    assert repro(copy, "--dry") == ["evaluate", "report"]
    with at_work_in(copy):
        run("dvc commit --force evaluate report", copy)
    assert repro(copy) == []
