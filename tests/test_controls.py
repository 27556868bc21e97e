"""The controls: their maths by hand, their graph, and every command on models of some thousand parameters."""

import ast
import csv
import json
import math
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import imports
import numpy as np
import pytest
import yaml
from imports import ROOT

from controls import best_of_n, findings, halves, models
from stages.metrics import bootstrap
from stages.text import records

pytestmark = pytest.mark.slow


def test_the_bound_of_best_of_n_by_hand() -> None:
    assert models.kl_bound(1) == 0
    assert models.kl_bound(2) == pytest.approx(0.6931 - 0.5, abs=1e-4)
    assert models.kl_bound(4) == pytest.approx(1.3863 - 0.75, abs=1e-4)
    assert models.kl_bound(16) == pytest.approx(2.7726 - 0.9375, abs=1e-4)


def test_the_best_of_n_is_expected_over_all_subsets() -> None:
    """Of 1, 3, 2 the pairs are (1, 3), (1, 2), (3, 2), whose highest are 3, 2, 3."""
    ranked, values = [1.0, 3.0, 2.0], [10.0, 20.0, 60.0]
    assert best_of_n.expected(ranked, ranked, 1) == pytest.approx(2)
    assert best_of_n.expected(ranked, ranked, 2) == pytest.approx(8 / 3)
    assert best_of_n.expected(ranked, ranked, 3) == pytest.approx(3)
    assert best_of_n.expected(ranked, values, 2) == pytest.approx((20 + 60 + 20) / 3)


def test_the_halves_share_no_question_and_lose_no_pair(tmp_path: Path) -> None:
    questions = ["a", "b", "a", "c", "d", "b", "e"]
    pairs = [records.Pair([], question, f"{at}", "") for at, question in enumerate(questions)]
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(pair._asdict()) + "\n" for pair in pairs), encoding="utf-8")
    halves.main(file, tmp_path / "halves")
    proxy, gold = (records.read_pairs(tmp_path / "halves" / f"{name}.jsonl") for name in halves.NAMES)
    assert not {pair.instruction for pair in proxy} & {pair.instruction for pair in gold}
    assert sorted(pair.chosen for pair in proxy + gold) == [f"{at}" for at in range(7)]


def test_dpos_loss_by_hand() -> None:
    """β (log π/π_ref of the chosen − of the rejected) is 0.1 · (2 − (−1)) = 0.3 and 0.1 · (0 − 1) = −0.1."""
    import torch

    from controls import dpo

    policy, reference = torch.tensor([-3.0, -4.0, -6.0, -1.0]), torch.tensor([-5.0, -4.0, -5.0, -2.0])
    found = dpo.losses(policy, reference, 0.1)
    expected = [[1, math.log(1 + math.exp(-0.3)), 1, 0.3], [1, math.log(1 + math.exp(0.1)), 0, -0.1]]
    assert found.tolist() == [pytest.approx(row, abs=1e-6) for row in expected]
    unmoved = dpo.losses(reference, reference, 0.1)
    assert unmoved[:, 1].tolist() == pytest.approx([math.log(2)] * 2)


def test_the_share_of_a_gain_by_hand() -> None:
    """PPO gains 2 on average, length alone 1; where PPO gains nothing beyond chance there is no share."""
    dialogues = [at // 2 for at in range(60)]
    before = [float(at % 5) for at in range(60)]
    whole = [value + 1 + at // 2 % 3 for at, value in enumerate(before)]
    part = [value + (1 + at // 2 % 3) / 2 for at, value in enumerate(before)]
    share = findings.share_of_gain(before, whole, part, dialogues, 200, 0)
    assert share and share.value == pytest.approx(0.5) and share.units == 30
    noise = np.random.default_rng(0).normal(size=60)
    assert findings.share_of_gain(before, list(before + noise - noise.mean()), part, dialogues, 200, 0) is None


@pytest.mark.parametrize(
    ("gains", "short"),
    [
        ({}, "yes"),
        ({"dpo": 2.0}, "no"),
        ({"dpo": 1.0}, "unknown"),
    ],
)
def test_the_verdict_is_what_the_intervals_say(gains: dict[str, float], short: str) -> None:
    """PPO gains 1 sd on SFT; all others gain nothing, but for `gains`."""
    found = made_up(gains)
    compared = findings.compare(found, 200, 0)
    told = {answer.name: answer for answer in findings.answers(found, compared, 200, 0)}
    assert told["paid"].short.key == f"controls.paid.{short}"
    assert told["judge"].short.key == "controls.judge.yes"
    assert told["length"].short.key == "controls.length.yes"
    if short != "yes":
        assert told["paid"].short.values["models"] == [findings.label("dpo")]


@pytest.mark.parametrize(("more", "told"), [(0.0, "unknown"), (0.5, "shown"), (-0.5, "judge")])
def test_which_reward_model_sees_the_larger_gain(more: float, told: str) -> None:
    """PPO gains 1 sd by the judge, and `more` than that by the reward that it optimised."""
    found = made_up({})
    noise = np.random.default_rng(2).normal(scale=0.3, size=80)
    ppo = found.numbers[models.SUBJECT]
    ppo["reward"] = list(np.array(ppo["gold"]) + more + noise - noise.mean())
    answers = findings.answers(found, findings.compare(found, 200, 0), 200, 0)
    (judge,) = [answer for answer in answers if answer.name == "judge"]
    assert f"controls.gap.{told}" in {sentence.key for sentence in judge.because}


def test_a_judge_that_is_no_better_than_chance_tells_nothing() -> None:
    found = made_up({"dpo": 2.0}, right=0.52)
    compared = findings.compare(found, 200, 0)
    assert {compared.mark(other, findings.GOLD) for other in compared.differences} == {"unknown"}
    assert compared.mark("dpo", findings.PROXY) == "worse"
    told = {answer.name: answer for answer in findings.answers(found, compared, 200, 0)}
    assert told["paid"].short.key == "controls.paid.unknown"
    assert told["judge"].because[-1].key == "controls.untrusted"


def made_up(gains: dict[str, float], right: float = 0.7) -> Any:
    from controls.inputs import Accuracy, Found
    from controls.models import MODELS, SUBJECT

    draw = np.random.default_rng(1)
    difficulty = draw.normal(size=80)
    numbers = {}
    for model in MODELS:
        gain = gains.get(model.name, 1.0 if model.name in (SUBJECT, "ppo") else 0.0)
        own = difficulty + gain + draw.normal(scale=0.3, size=80)
        own += gain - (own - difficulty).mean()
        numbers[model.name] = {"gold": list(own), "reward": list(own), "rouge-l": list(20 + own), "kl": [1.0] * 80,
                               "response_length": list(30 + own)}  # fmt: skip
    ordered = [float(at < 200 * right) for at in range(200)]
    accuracy = {name: Accuracy(bootstrap.mean(ordered, range(200), 200, 0, (0, 1)), 0.6, 100) for name in halves.NAMES}
    return Found([at // 2 for at in range(80)], numbers, {}, {}, accuracy)


# ----------------------------------------------------------------------------------------------------------------------
# The graph


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The stages as DVC reads them from the copy that `make controls` makes."""
    from dvc.dvcfile import load_file
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("checkout")
    (root / "controls").mkdir()
    shutil.copy(ROOT / "controls/pipeline.yaml", root / "controls/dvc.yaml")
    for file in ("params.yaml", "controls/params.yaml"):
        shutil.copy(ROOT / file, root / file)
    repo = Repo.init(str(root), no_scm=True)
    return {stage.name: stage for stage in load_file(repo, str(root / "controls/dvc.yaml")).stages.values()}


def deps(stage: Any) -> set[str]:
    from dvc.dependency import ParamsDependency

    return {dep.def_path for dep in stage.deps if not isinstance(dep, ParamsDependency)}


def module_of(stage: Any) -> Path:
    (name,) = re.findall(r"-m (?:stages\.launch )?([\w.]+)", stage.cmd)
    return ROOT / f"{name.replace('.', '/')}.py" if "." in name else ROOT / f"stages/{name}.py"


def code(stage: Any) -> set[str]:
    """The files of controls/ and the commands of stages/ one by one, the rooms as folders."""
    files = imports.closure(module_of(stage))
    rooms = {"/".join(file.parts[:2]) for file in files if file.parts[0] == "stages"}
    return rooms | {file.as_posix() for file in files if file.parts[0] == "controls" and file.name != "__init__.py"}


def test_a_control_depends_on_the_code_that_it_runs(graph: dict[str, Any]) -> None:
    for name, stage in graph.items():
        declared = {dep for dep in deps(stage) if dep.endswith(".py") or dep.startswith("stages/")}
        assert declared == code(stage), f"{name}: add {code(stage) - declared}, take out {declared - code(stage)}"


def test_a_control_depends_on_the_paths_that_it_is_given(graph: dict[str, Any]) -> None:
    for name, stage in graph.items():
        given = {word for word in shlex.split(stage.cmd) if word.split("/")[0] in ("data", "models", "reports")}
        known = {dep for dep in deps(stage) if not dep.startswith(("stages/", "controls/"))}
        known |= {out.def_path for out in stage.outs}
        for word in given:
            assert any(path == word or path.startswith(f"{word}/") for path in known), f"{name}: {word} not declared"
        for path in known:
            assert any(path == word or path.startswith(f"{word}/") for word in given), f"{name}: {path} not given"


def test_a_control_declares_the_parameters_that_it_reads(graph: dict[str, Any]) -> None:
    for name, stage in graph.items():
        read = {
            ast.literal_eval(node.args[1])
            for file in imports.closure(module_of(stage))
            for node in ast.walk(imports.tree(ROOT / file))
            if isinstance(node, ast.Call)
            and ast.unparse(node.func) == "params.load"
            and file.parts[0] == module_of(stage).relative_to(ROOT).parts[0]  # of a command, not of those it builds on
        }
        declared = {key.partition(".")[0] for dep in stage.params for key in dep.params}
        if name == "gold":  # it runs the command `rm`
            read.add("rm")
        assert declared == read, name


def test_the_run_knows_nothing_of_the_controls(graph: dict[str, Any]) -> None:
    assert "control" not in (ROOT / "dvc.yaml").read_text(encoding="utf-8")
    tracked = subprocess.run(
        ["git", "ls-files", "controls"], cwd=ROOT, text=True, capture_output=True, check=False
    ).stdout
    assert "controls/dvc.yaml" not in tracked.split(), "DVC would miss its outs in every checkout"
    for file in (ROOT / "stages").rglob("*.py"):
        assert not {name for name in imports.names(ast.walk(imports.tree(file))) if name.split(".")[0] == "controls"}
    written = {out.def_path for stage in graph.values() for out in stage.outs}
    document = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
    for path in written:
        assert path not in json.dumps(document)
        assert path.startswith(("models/controls/", "reports/controls/", "reports/controls.")), path


def test_each_sentence_is_there_in_both_languages_and_used() -> None:
    texts = json.loads((ROOT / "controls/i18n.json").read_text(encoding="utf-8"))
    source = "".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "controls").iterdir() if file.suffix in (".py", ".jinja")
    )
    for key, each in texts.items():
        assert set(each) == {"en", "zh"}
        mentioned = [sorted(re.findall(r"\{(\w+)\}", text)) for text in each.values()]
        assert mentioned[0] == mentioned[1], key
        parts = key.split(".")
        stems = [".".join(parts[:count]) for count in range(1, len(parts))]
        assert key in source or any(f"{s}.{{" in source or f'"{s}." ~' in source for s in stems), f"{key} is not used"


# ----------------------------------------------------------------------------------------------------------------------
# Every command


@pytest.mark.slow
def test_every_command_end_to_end(tmp_path: Path, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tiny_run

    from controls import dpo, evaluate, gold, length_only, no_critic, ppo_half, report
    from stages import predict, rm
    from stages.models import stack

    top, out, logs = tmp_path / "run", tmp_path / "models", tmp_path / "logs"
    tiny_run.write(top)
    config = top / "params.yaml"
    halves.main(top / "preferences_train.jsonl", logs / "pairs")
    for name, train in zip(halves.NAMES, (rm.main, gold.main), strict=True):
        train(
            logs / f"pairs/{name}.jsonl", top / "preferences_validate.jsonl", top / "base", out / f"reward_{name}",
            logs / f"reward_{name}", config,
        )  # fmt: skip
    judges = (out / "reward_proxy", out / "reward_gold")
    assert stack.lineage(judges[0]).sha256 != stack.lineage(judges[1]).sha256

    inputs = (top / "train.jsonl", top / "validate.jsonl", top / "base", top / "sft", *judges)
    for control in (ppo_half, no_critic, length_only):
        name = control.__name__.rpartition(".")[2]
        control.main(*inputs, out / name, logs / name, config)
    curves = {name: rows(logs / name / "curve.csv") for name in ("ppo_half", "no_critic", "length_only")}
    first = {name: curve[0] for name, curve in curves.items()}
    assert first["ppo_half"]["gold"] == first["no_critic"]["gold"] == first["length_only"]["gold"], "all begin as SFT"
    assert first["ppo_half"]["gold"] != first["ppo_half"]["score"] == first["no_critic"]["score"]
    assert curves["no_critic"][-1]["explained_variance"] == "0"
    samples = records.read_samples(top / "test.jsonl")

    dpo.main(
        logs / "pairs/proxy.jsonl", top / "preferences_validate.jsonl", top / "base", top / "sft", out / "dpo",
        logs / "dpo", config, ROOT / "controls/params.yaml",
    )  # fmt: skip
    assert stack.lineage(out / "dpo").below == {"sft": stack.lineage(top / "sft").sha256}

    best_of_n.main(
        top / "test.jsonl", top / "base", top / "sft", *judges, logs / "best_of_n", logs / "best_of_n.jsonl", config
    )
    drawn = [json.loads(line) for line in (logs / "best_of_n.jsonl").read_text().splitlines()]
    assert len(drawn) == len(samples)
    for row in drawn:
        assert sorted(each["reward"] for each in row.values()) == [row[str(n)]["reward"] for n in models.SIZES]

    for name in ("ppo_half", "no_critic", "length_only", "dpo"):
        adapters = [top / "sft", out / name]
        predict.main(name, top / "test.jsonl", top / "base", logs / f"answers/{name}.jsonl", config, adapters)
    predict.main("sft", top / "test.jsonl", top / "base", logs / "own/sft.jsonl", config, [top / "sft"])
    for name in ("ppo", "retrieval"):  # the run's own
        shutil.copy(logs / "answers/ppo_half.jsonl", logs / f"own/{name}.jsonl")
    shutil.copytree(out / "ppo_half", out / "ppo")
    policies = [out / name for name in ("ppo_half", "no_critic", "length_only", "dpo", "ppo")]
    folders = [logs / "answers", logs / "best_of_n", logs / "own"]
    evaluate.main(top, folders, top / "base", top / "sft", *judges, policies, logs / "evaluation", config)
    numbers = [json.loads(line) for line in (logs / "evaluation/ppo_half.jsonl").read_text().splitlines()]
    assert all(row["kl"] >= -1e-4 for row in numbers) and any(row["kl"] > 0 for row in numbers)

    report.main(logs, logs / "own/sft.jsonl", tmp_path / "controls.html", tmp_path / "controls.md", config)
    page, table = ((tmp_path / f"controls.{kind}").read_text(encoding="utf-8") for kind in ("html", "md"))
    assert page.count('<article class="answer') == 4 and page.count("<svg") == 2
    assert "| PPO for length only |" in table and table.count("\n| ") == 2 + 9 + 2 + 8 + 0
    # so few dialogues prove nothing
    assert "Can't tell" in table and "**better**" not in table and "**worse**" not in table


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_what_is_killed_goes_on_to_the_same_bytes(
    tmp_path: Path, work: Path, tiny_folders: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PPO with its column `gold`, and DPO with its reference, which no checkpoint holds."""
    import tiny_models
    import tiny_run
    import transformers

    from controls import dpo, ppo_half
    from stages.rl import trainer

    tiny_run.write(tmp_path)
    tiny_models.write_adapter(tmp_path / "gold", "reward", tmp_path / "base", seed=5)
    base, sft, config = tmp_path / "base", tmp_path / "sft", tmp_path / "params.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("eval_steps: 4", "eval_steps: 2"), encoding="utf-8")

    def run_ppo(to: Path) -> None:
        samples, judges = (tmp_path / "train.jsonl", tmp_path / "validate.jsonl"), (tmp_path / "rm", tmp_path / "gold")
        ppo_half.main(*samples, base, sft, *judges, to / "ppo", to / "ppo-log", config)

    def run_dpo(to: Path) -> None:
        pairs = (tmp_path / "preferences_train.jsonl", tmp_path / "preferences_validate.jsonl")
        dpo.main(*pairs, base, sft, to / "dpo", to / "dpo-log", config, ROOT / "controls/params.yaml")

    for run, owner, method, calls in (
        (run_ppo, trainer.Trainer, "sample_rollouts", 2),  # after a checkpoint, which there is every second update
        (run_dpo, transformers.Trainer, "training_step", 2),  # in step 3; a checkpoint holds step 2
    ):
        run(tmp_path / "whole")
        done = iter(range(calls))
        original = getattr(owner, method)

        def dying(*arguments: Any, done: Any = done, original: Any = original, **named: Any) -> Any:
            if next(done, None) is None:
                raise Killed
            return original(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(owner, method, dying)
            with pytest.raises(Killed):
                run(tmp_path / "killed")
        run(tmp_path / "killed")
    whole = sorted(file.relative_to(tmp_path / "whole") for file in (tmp_path / "whole").rglob("*") if file.is_file())
    assert len(whole) > 8
    for file in whole:
        assert (tmp_path / "killed" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes(), file


class Killed(BaseException):
    """Nothing catches it."""
