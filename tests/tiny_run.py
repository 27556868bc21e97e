"""The stages that need a base, on the models of tiny_models.py and a few samples: seconds for all of them."""

import json
from pathlib import Path

import tiny_models
import yaml

from stages import evaluate, ppo, predict, rm, sft
from stages.models import base_model

ROOT = Path(__file__).parents[1]
SAMPLES = [
    {"history": [], "instruction": f"发烧{n}天了，怎么办？" + "还咳嗽。" * (n % 5), "output": "多喝水。" * (1 + n % 3)}
    for n in range(40)
]
PAIRS = [
    {"history": [], "instruction": f"嗓子疼{n}天了。", "chosen": "建议做核酸。" * (1 + n % 2), "rejected": "不知道。"}
    for n in range(24)
]


def write(top: Path, **model: object) -> None:
    """Data, models and params.yaml below `top`; `model` says how the base is to be loaded."""
    folders = tiny_models.write(top)
    base_model.write_pointer(folders.base, tiny_models.MODEL.replace(**model))
    for name, rows in (
        ("train", SAMPLES),
        ("validate", SAMPLES[:8]),
        ("test", SAMPLES[:11]),
        ("preferences_train", PAIRS),
        ("preferences_validate", PAIRS[:9]),
    ):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (top / f"{name}.jsonl").write_text(text, encoding="utf-8")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for stage in ("sft", "rm"):
        params[stage] |= {
            "num_train_epochs": 1,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "logging_steps": 1,
            "eval_steps": 4,
            "max_source_length": 96,
            "max_target_length": 32,
        }
        params[stage]["lora"]["dropout"] = 0.0  # each process draws its own
    params["rm"] |= {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 1}  # so that a pass is divided
    params["sft"]["dev_ratio"] = 0.15  # 7 samples: the last batch is not full, and one process gets more than another
    params["ppo"] |= {
        "total_episodes": 24,
        "batch_size": 8,
        "tokens_per_batch": 160,
        "normalization_samples": 8,
        "save_steps": 2,
        "max_source_length": 96,
        "min_response_length": 6,
        "max_response_length": 12,
    }
    params["predict"] |= {"max_source_length": 96, "max_new_tokens": 12, "batch_size": 4}
    (top / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def run_sft(top: Path, to: Path) -> None:
    sft.main(
        top / "train.jsonl", top / "validate.jsonl", top / "base", to / "sft", to / "log" / "sft", top / "params.yaml"
    )


def run_rm(top: Path, to: Path) -> None:
    rm.main(
        top / "preferences_train.jsonl", top / "preferences_validate.jsonl", top / "base", to / "rm", to / "log" / "rm",
        top / "params.yaml",
    )  # fmt: skip


def run_ppo(top: Path, to: Path) -> None:
    """On the given sft and rm: a last digit that differs in these would grow in PPO."""
    ppo.main(
        top / "train.jsonl", top / "validate.jsonl", top / "base", top / "sft", top / "rm", to / "ppo",
        to / "log" / "ppo", top / "params.yaml",
    )  # fmt: skip


def run_predict(top: Path, to: Path) -> None:
    for name, adapters in (("base", []), ("sft", [top / "sft"]), ("ppo", [top / "sft", to / "ppo"])):
        to_file = to / "answers" / f"{name}.jsonl"
        predict.main(name, top / "test.jsonl", top / "base", to_file, top / "params.yaml", adapters)


def run_evaluate(top: Path, to: Path) -> None:
    evaluate.main(
        top, to / "answers", top / "base", top / "sft", to / "evaluation", top / "params.yaml", top / "rm", to / "ppo"
    )
