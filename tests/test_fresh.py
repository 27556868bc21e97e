"""What runs gained on fresh questions: the numbers of predict and evaluate, and a table of them."""

import json
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from checkouts import at_work_in
from imports import ROOT

from controls import fresh
from stages import compare
from stages.importing import dialogues
from stages.runtime.errors import UserError
from stages.text.records import Sample

DATA = ROOT / "data/sample"


def test_only_answers_of_like_length_are_compared_where_asked() -> None:
    sft = [{"reward": 1.0, "response_length": 10}, {"reward": 2.0, "response_length": 10}]
    ppo = [{"reward": 1.5, "response_length": 13}, {"reward": 4.0, "response_length": 14}]
    every, equal, *_, facts = fresh.COLUMNS[:4]
    assert fresh.more(every, sft, ppo) == [0.5, 2.0]
    assert fresh.more(equal, sft, ppo) == [0.5, None]
    assert fresh.more(facts, sft, ppo) == [None, None]
    assert fresh.more(facts, [{"facts_named": 0.5}], [{"facts_named": 1.0}]) == [50.0]


def test_the_table_by_hand() -> None:
    """Two runs whose questions gain 1 and 3: the mean is 2, which two seeds, 2 apart, don't show."""
    runs = {
        name: {column.title: [gain] * 60 if column.title == "Reward, sd" else [None] * 60 for column in fresh.COLUMNS}
        for name, gain in (("a", 1.0), ("b", 3.0))
    }
    lines = fresh.markdown(runs, [at // 2 for at in range(60)]).splitlines()
    assert lines[2] == "| Run | Reward, sd |"
    assert [line.partition(" (")[0] for line in lines[4:7]] == ["| `a` | +1.00", "| `b` | +3.00", "| mean of 2 | +2.00"]
    assert "**" not in lines[6], "Student's t with one degree of freedom"
    assert "60 questions of 30 dialogues" in lines[8]


def test_a_run_without_answers_of_like_length_has_a_dash() -> None:
    equal = fresh.COLUMNS[1]
    runs = {
        name: {column.title: ([gain] if column == equal else [1.0]) * 40 for column in fresh.COLUMNS}
        for name, gain in (("a", 1.0), ("b", None))
    }
    lines = fresh.markdown(runs, list(range(40))).splitlines()
    one = "+1.00 (+1.00\u00a0…\u00a0+1.00) [40]"
    assert [line.split(" | ")[2] for line in lines[4:7]] == [one, "–", one]


def test_runs_that_make_other_samples_of_the_questions_are_not_compared(
    tmp_path: Path, params: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dialogue = ["病人：发烧怎么办？", "医生：多喝水。", "病人：还要吃药吗？", "医生：先观察两天再说。"]
    (tmp_path / "test_data.json").write_text(json.dumps([dialogue]), encoding="utf-8")
    for name, shortest in (("all", 1), ("long", 5)):
        (tmp_path / name).mkdir()
        params(tmp_path / name, {"data": {"min_answer_length": shortest}})
    monkeypatch.setattr(fresh, "fetch", lambda rev, folder: tmp_path / rev)
    monkeypatch.setattr(fresh, "measure", lambda questions, run: {})
    with pytest.raises(SystemExit):
        fresh.main(tmp_path, ["all", "long"])
    assert "long: its section `data` makes other samples" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_gets_the_numbers_of_predict_and_evaluate(tmp_path: Path, work: Path) -> None:
    import tiny_models
    import tiny_run

    top = tmp_path / "models"
    tiny_run.write(top)
    (top / "params.yaml").rename(tmp_path / "params.yaml")
    tiny_models.write_adapter(top / "ppo", "ppo", top / "base", [top / "sft"], seed=5)
    samples = [Sample(**row, dialogue=at) for at, row in enumerate(tiny_run.SAMPLES[:11])]
    found = fresh.measure(fresh.Questions(samples, [None] * 11), tmp_path)

    (tmp_path / "params.yaml").rename(top / "params.yaml")
    tiny_run.run_predict(top, top)
    tiny_run.run_evaluate(top, top)
    sft, ppo = (
        [json.loads(line) for line in (top / f"evaluation/{name}.jsonl").read_text(encoding="utf-8").splitlines()]
        for name in ("sft", "ppo")
    )
    unit = statistics.pstdev(row["reward"] for row in sft)
    gains = [(after["reward"] - before["reward"]) / unit for before, after in zip(sft, ppo, strict=True)]
    assert found["Reward, sd"] == pytest.approx(gains, abs=2e-3) and any(gains)
    assert found["ROUGE-L"] == pytest.approx([b["rouge-l"] - a["rouge-l"] for a, b in zip(sft, ppo, strict=True)])
    against_best = [value for value in found["… against best of 4"] if value is not None]
    assert all(value <= gain + 1e-3 for value, gain in zip(against_best, gains, strict=True)), "SFT's own is one of 4"
    assert any(value < gain - 1e-3 for value, gain in zip(against_best, gains, strict=True))


@pytest.mark.slow
def test_the_models_of_a_commit_come_from_the_remote(clone: Path, tmp_path: Path) -> None:
    with at_work_in(clone):
        run = fresh.fetch("HEAD", tmp_path / "run")
    assert {path.name for path in (run / "models").iterdir()} == set(fresh.RUN)
    assert (run / "params.yaml").read_bytes() == (clone / "params.yaml").read_bytes()


@pytest.mark.slow
def test_an_experiment_that_failed_ends_in_one_line(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "queue", lambda: {"sorry-goal": "Failed"})
    with at_work_in(clone), pytest.raises(UserError, match="sorry-goal: the experiment is failed"):
        fresh.fetch("sorry-goal", tmp_path)


@pytest.mark.slow
def test_models_that_are_nowhere_end_in_one_line(clone: Path, tmp_path: Path) -> None:
    (clone / ".dvc/config").write_text("", encoding="utf-8")
    with at_work_in(clone), pytest.raises(UserError, match="HEAD: models/base is in no cache and no remote"):
        fresh.fetch("HEAD", tmp_path / "run")


def test_a_file_without_a_sample_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "test_data.json").write_text('[["病人：你好", "医生：好"]]', encoding="utf-8")
    with pytest.raises(UserError, match="no dialogue of it gives a sample"):
        fresh.read(tmp_path, ROOT / "params.yaml")


def test_fresh_questions_are_fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DATA))
    import generate

    before = {name: (DATA / name).read_text(encoding="utf-8") for name in ("train_data.json", "preferences.json")}
    monkeypatch.setattr(sys, "argv", ["generate.py", "--fresh", "20", "--to", str(tmp_path)])
    generate.main()
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    questions = fresh.read(tmp_path, tmp_path / "params.yaml")
    assert len(set(questions.dialogues)) == 20 and all(questions.facts)
    rules = dialogues.DialogueRules()
    old = [
        sample
        for name in generate.SIZES
        for dialogue in json.loads((DATA / name).read_text(encoding="utf-8"))
        for sample in dialogues.to_samples(dialogue, rules, name)[0]
    ]
    asked = {sample.instruction for sample in old} | {
        row["instruction"] for row in json.loads(before["preferences.json"])
    }
    assert not {sample.instruction for sample in questions.samples} & asked
    answered = {sample.output for sample in old}
    assert not {sample.output for sample in questions.samples if len(sample.output) >= generate.LONG} & answered
    assert (DATA / "train_data.json").read_text(encoding="utf-8") == before["train_data.json"]
