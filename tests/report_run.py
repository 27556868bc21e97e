"""A run that never was: what the other stages would leave, for the tests of the report."""

import json
import random
from pathlib import Path
from typing import Any

from stages.metrics.definitions import BASELINE, MODELS
from stages.page import inputs

HOSTILE = "</script><script>window.injected = 1</script><img src=x onerror='window.injected = 2'> & <!-- \u2028 \ud83d"
LETTERS = "发热咳嗽三天体温三十八度建议多喝水注意休息观察如果加重及时到医院就诊不用太担心"
CLOSING = "有事再问。"
SIZES = {"base": 120, "sft": 17, "ppo": 28, BASELINE: 25}
ROUGE = {"base": 6, "sft": 14, "ppo": 14.5, BASELINE: 20}
REWARD = {"base": -1, "sft": 0, "ppo": 0.8, BASELINE: 0.2}
PARAMS = """
seed: 42
model: {name: tiny}
data: {dialogues: '<b>sample', preferences: data/pairs.json}
report: {title: null, smoothing: true, bootstrap_samples: 200, language: en}
"""


def write(root: Path, count: int = 40, updates: int = 60, pairs: int = 80) -> dict[str, Path]:
    """Write `count` test questions, two to a dialogue, where SFT helps and PPO lengthens, and all around them.

    Returns:
        The options of the report.
    """
    draw = random.Random(7)
    reports = root / "reports"

    def text(size: float) -> str:
        return "".join(draw.choice(LETTERS) for _ in range(max(1, int(size)))) + "。"

    _answers_and_scores(reports, draw, text, count)
    probes: list[dict[str, float]] = []
    for number in range(pairs):
        better, worse = draw.randint(5, 60), draw.randint(5, 60)
        scores = {"chosen": draw.gauss(1, 1), "rejected": draw.gauss(-0.3, 1)}
        lengths = {"chosen_length": better, "rejected_length": worse}
        other = {f"{name}_other_question": value for name, value in scores.items()}
        probes.append({"question": number // 2} | scores | lengths | other | {"chosen_of_other": scores["chosen"] - 1})
    put(reports / "evaluation/pairs.jsonl", probes)
    for stage in inputs.TRAINED:
        put(reports / stage / "metrics.json", {"nested": {stage: HOSTILE}, "count": 3} | measured(stage))
        put(reports / stage / "environment.json", {"cpu": "one", "packages": {"torch": "2"}})
    put(reports / "data/metrics.json", {
        "sha256": {"test": "ab" * 32},
        "contamination": {"questions": 0.25, "answers": 0.125, "pairs": 0.0, "answers_compared": count},
    })  # fmt: skip
    put(reports / "evaluation/lineage.json", {"base": {"name": HOSTILE}, "sft": {}, "ppo": {}, "reward": {}})
    for name, (path, columns) in inputs.CURVES.items():
        _curve(reports / path, columns, updates if not name.endswith("_eval") else 8, draw)
    (root / "params.yaml").write_text(PARAMS, encoding="utf-8")
    return options(root)


def options(root: Path) -> dict[str, Path]:
    reports = root / "reports"
    return {
        "reports": reports,
        "page": reports / "index.html",
        "summary": reports / "summary.md",
        "headline": reports / "metrics.json",
        "environment": reports / "environment.json",
        "plots": reports / "plots",
        "params_file": root / "params.yaml",
    }


def measured(stage: str) -> dict[str, Any]:
    """What the report reads from a training stage's metrics; the sft stage of this run measured nothing."""
    known: dict[str, dict[str, Any]] = {
        "base": {"eval_loss": 1.25},
        "rm": {"eval_loss": 1.25, "eval_accuracy": 0.75},
        "ppo": {"last": {"score": 0.5, "entropy": 1.0}},
    }
    return known.get(stage, {})


def put(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = value if isinstance(value, list) else [value]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def get(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _answers_and_scores(reports: Path, draw: random.Random, text: Any, count: int) -> None:
    questions: list[tuple[int, list[list[str]], str, str]] = []
    for index in range(count):
        history = [] if index % 2 == 0 else [[questions[-1][2], questions[-1][3]]]
        question = HOSTILE if index == 3 else text(draw.uniform(8, 80))
        questions.append((index // 2, history, question, text(draw.uniform(6, 60))))
    rewards: dict[str, list[float]] = {}
    for model in (*MODELS, BASELINE):
        answers, scores = [], []
        for index, (dialogue, history, question, label) in enumerate(questions):
            predict = "" if index == 5 and model == "base" else text(draw.gauss(SIZES[model], SIZES[model] / 4))
            predict = HOSTILE + model if index == 3 else predict
            if model == "ppo" and index % 4 == 0:
                predict += CLOSING
            answers.append({"dialogue": dialogue, "history": history, "instruction": question, "label": label,
                            "predict": predict})  # fmt: skip
            value = max(0.0, (draw.gauss(0, 3) + ROUGE[model]))
            scores.append(
                {"rouge-1": value * 1.2, "rouge-2": value / 5, "rouge-l": value, "bleu-4": value / 3}
                | {"response_length": len(predict), "response_tokens": len(predict), "eos": model != "base"}
                | {"repetition": 0.01 * (index % 3), "reward": round(draw.gauss(REWARD[model], 0.5), 4)}
            )
        rewards[model] = [row["reward"] for row in scores]
        if model == BASELINE:
            scores = [row | {"predict": answer["predict"]} for row, answer in zip(scores, answers, strict=True)]
        else:
            put(reports / f"answers/{model}.jsonl", answers)
        put(reports / f"evaluation/{model}.jsonl", scores)
    put(reports / "evaluation/probes.json", {"closing": CLOSING})
    put(reports / "evaluation/probes.jsonl", [
        {"doctor": 0.1, "ppo_other_question": ppo, "sft_unrelated_appended": sft + 0.5, "ppo_cut": sft, "kl": 1.5,
         "sft_closing_appended": sft + 1, "closing": -1}
        for sft, ppo in zip(rewards["sft"], rewards["ppo"], strict=True)
    ])  # fmt: skip


def _curve(path: Path, columns: tuple[str, ...], rows: int, draw: random.Random) -> None:
    lines = [",".join(columns)]
    for step in range(1, rows + 1):
        part = step / rows
        known = {"step": step, "epoch": 3 * part, "eos_rate": 0.95, "ratio": 1.0, "repetition": 0.02}
        known |= {"score": -0.5 + part, "kl": 4 * part, "entropy": 2.5 - part, "response_length": 17 + 11 * part}
        lines.append(",".join(f"{known.get(c, 3 - 2 * part + draw.gauss(0, 0.1)):.6g}" for c in columns))
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
