"""A small Git and DVC repository whose runs are written by hand: the files that the stages leave, and no training."""

import contextlib
import csv
import json
import random
import subprocess
from pathlib import Path
from typing import Any

from dvc.repo import Repo
from ruamel.yaml import YAML

from stages.metrics.answer import Answer
from stages.metrics.definitions import measure

DIALOGUES = 30
ANSWERS = (
    "建议多喝水，注意休息，体温超过三十八度五可以吃布洛芬。",
    "不考虑新冠，像普通感冒，先观察两天。",
    "可以吃蒙脱石散，一天三次，饭前吃。",
    "去医院做一下核酸检测，戴好口罩。",
)
CLOSING = "有变化随时再问我。"
STACKS = ("base", "sft", "ppo")
GRAPH: dict[str, dict[str, list[str]]] = {
    "base": {"deps": ["data/test.jsonl", "stages/code.py"], "outs": ["models/base", "reports/base"]},
    "sft": {"deps": ["models/base"], "outs": ["models/sft", "reports/sft"]},
    "rm": {"deps": ["models/base"], "outs": ["models/rm", "reports/rm"]},
    "ppo": {"deps": ["models/sft", "models/rm"], "outs": ["models/ppo", "reports/ppo"]},
    **{
        f"predict-{name}": {"deps": [f"models/{name}", "data/test.jsonl"], "outs": [f"reports/answers/{name}.jsonl"]}
        for name in STACKS
    },
    "evaluate": {
        "deps": ["models/rm", *(f"reports/answers/{name}.jsonl" for name in STACKS)],
        "outs": ["reports/evaluation"],
    },
}
PARAMS: dict[str, Any] = {
    "seed": 1,
    "data": {"seed": 7},
    "sft": {"learning_rate": 3.0e-5, "lora": {"target_modules": ["q_proj", "v_proj"]}},
    "rm": {"learning_rate": 0.0005},
    "ppo": {"kl_coef": 0.3, "early_stop_kl": None},
    "predict": {"temperature": 0.95},
}
SECTIONS = {
    "base": ["seed"],
    "sft": ["seed", "data.seed", "sft"],
    "rm": ["seed", "rm"],
    "ppo": ["seed", "ppo"],
    "evaluate": [],
}


class Project:
    """The repository; what it does stands in the order of a user's day: write a run, record it, commit or save it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "-q", "-b", "main", ".")
        self.git("config", "user.name", "tester")
        self.git("config", "user.email", "tester@localhost")
        Repo.init(str(folder)).close()
        stages = {
            name: {"cmd": f"python -m {name}", "params": SECTIONS.get(name, ["seed", "predict"]), **parts}
            for name, parts in GRAPH.items()
        }
        self.yaml("dvc.yaml", {"stages": stages, "metrics": ["reports/metrics.json"]})
        outs = [out for parts in GRAPH.values() for out in parts["outs"]]
        self.text(".gitignore", "".join(f"/{out}\n" for out in outs))
        self.text("stages/code.py", "version = 1\n")

    def git(self, *arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=self.folder, check=True, text=True, stdout=subprocess.PIPE
        ).stdout.strip()

    def text(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)  # a link into the cache must not be written through
        file.write_text(text, encoding="utf-8")

    def yaml(self, path: str, document: dict[str, Any]) -> None:
        self.text(path, "")
        YAML().dump(document, self.folder / path)

    def lines(self, path: str, rows: list[dict[str, Any]]) -> None:
        self.text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def run(self, closing: float = 0.2, dialogues: int = DIALOGUES, reward_model: str = "one", **params: Any) -> None:
        """Write what a run would leave.

        Args:
            closing: share of PPO's answers that end with the closing sentence; SFT's never do.
            params: dotted keys with `__` for the dot, e.g. `ppo__kl_coef=0.1`.
        """
        document = json.loads(json.dumps(PARAMS))
        for key, value in params.items():
            section, _, name = key.partition("__")
            if name:
                document[section][name] = value
            else:
                document[section] = value
        self.yaml("params.yaml", document)
        draw = random.Random(document["seed"])
        questions: list[dict[str, Any]] = [
            {"dialogue": number, "history": [["你好", "你好，请说。"]] * turn,
             "instruction": f"发烧{number}天了怎么办？", "label": ANSWERS[number % 4]}
            for number in range(dialogues) for turn in range(2)
        ]  # fmt: skip
        self.lines("data/test.jsonl", questions)
        for stack in STACKS:
            answers = ["" if stack == "base" else draw.choice(ANSWERS) for _ in questions]
            if stack == "ppo":
                answers = [text + CLOSING * (draw.random() < closing) for text in answers]
            rows = [
                question | {"predict": text, "tokens": len(text), "eos": True}
                for question, text in zip(questions, answers, strict=True)
            ]
            self.lines(f"reports/answers/{stack}.jsonl", rows)
            measured = [measure(Answer(row["predict"], row["label"], row["tokens"], True)) for row in rows]
            rewards = [{"reward": round(len(text) / 20, 4)} for text in answers]
            self.lines(f"reports/evaluation/{stack}.jsonl", [a | b for a, b in zip(measured, rewards, strict=True)])
        lengths = {"rouge-l": 20.5, "reward": 0.1, "response_length": 30 * closing, "distinct-2": 40.0}
        self.text("reports/metrics.json", json.dumps({"sft": lengths, "ppo": lengths}))
        lineage = {"base": {"identity": "tiny:1"}, "reward": {"sha256": reward_model}}
        self.text("reports/evaluation/lineage.json", json.dumps(lineage))
        for stage in ("base", "sft", "rm", "ppo"):
            self.text(f"models/{stage}/weights", f"{stage} {document}")
            self.text(f"reports/{stage}/environment.json", json.dumps({"cpu": "a CPU", "threads": 1}))
            self.curves(stage, document)

    def curves(self, stage: str, params: dict[str, Any]) -> None:
        if stage == "ppo":
            names = ("step", "score", "kl", "response_length", "entropy", "eos_rate")
            rows = [(n, n / 9 + n % 3, n / params["ppo"]["kl_coef"], 20 + n, 3, 1) for n in range(40)]
            self.table("reports/ppo/curve.csv", names, rows)
        else:
            self.table(f"reports/{stage}/curve.csv", ("step", "loss"), [(n, 3 / (n + 1)) for n in range(9)])
            rows = [(n, 3 / (n + 1), "", 0.5 + n / 50) for n in range(0, 9, 4)]
            self.table(f"reports/{stage}/eval_curve.csv", ("step", "eval_loss", "epoch", "eval_accuracy"), rows)

    def table(self, path: str, names: tuple[str, ...], rows: list[Any]) -> None:
        self.text(path, "")
        with (self.folder / path).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([names, *rows])

    def record(self) -> None:
        """What `dvc repro` leaves in dvc.lock and in the cache, had it made the files of the workspace."""
        with contextlib.chdir(self.folder), Repo() as repo:
            repo.commit(force=True)

    def commit(self, tag: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", tag)
        self.git("tag", tag)

    def experiment(self, name: str) -> None:
        """Save the workspace as an experiment, and go back to the last commit."""
        with contextlib.chdir(self.folder), Repo() as repo:
            repo.experiments.save(name=name)
        self.git("checkout", "-q", "--force", ".")
