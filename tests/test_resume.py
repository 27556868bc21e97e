"""A stage that is killed goes on where it was and ends with the same bytes, wherever it was hit.

Each chain below is one run that is killed again and again, and damaged in between; its outputs are compared with those
of a run that nobody disturbed.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import tiny_models
import yaml
from safetensors.torch import load_file, save_file

from stages.base import BaseConfig
from stages.models import base_model
from stages.preference.config import RmConfig
from stages.rl.config import PpoConfig
from stages.runtime import checkpoints
from stages.sft import SftConfig
from stages.training import trainer

pytestmark = pytest.mark.slow

SUPERVISED = {
    "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 0.03, "warmup_ratio": 0.1,
    "weight_decay": 0.01, "logging_steps": 2, "eval_steps": 4, "num_train_epochs": 3,
}  # fmt: skip
LENGTHS = {"max_source_length": 40, "max_target_length": 12}
LORA = tiny_models.LORA.replace(r=2, alpha=4, dropout=0.2)
SECTIONS = {
    "model": tiny_models.MODEL,
    "base": BaseConfig(**SUPERVISED).replace(
        architecture=tiny_models.ARCHITECTURE, block_size=16, num_train_epochs=3.6, learning_rate=0.02
    ),
    "sft": SftConfig(**SUPERVISED, **LENGTHS, dev_ratio=0.2, lora=LORA),
    "rm": RmConfig(**SUPERVISED, **LENGTHS, lora=LORA),
    "ppo": PpoConfig(
        total_episodes=36, batch_size=4, tokens_per_batch=100, normalization_samples=6, learning_rate=3e-3,
        warmup_ratio=0.2,
        max_source_length=40, min_response_length=4, max_response_length=6, local_rollout_forward_batch_size=4,
        lm_head_chunk=16, kl_coef=0.05, kl_target=6.0, kl_horizon=100, value_head_init="reward", save_steps=2,
        lora=LORA.replace(dropout=0.0),
    ),
}  # fmt: skip
PARAMS = {name: section.model_dump(mode="json") for name, section in SECTIONS.items()}
STEP = "transformers:Trainer.training_step"
UPDATE = "stages.rl.trainer:Trainer.step"


class Runs:
    """Orders runs of stages from the process that forks them."""

    def __init__(self, top: Path):
        self.top = top
        self.inputs = write_inputs(top / "inputs")
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("interrupted_stage.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1",
                              "TOKENIZERS_PARALLELISM": "false"},
        )  # fmt: skip

    def run(self, stage: str, to: Path, kill: list | None = None, **changed: object) -> tuple[int, str]:
        """The exit code (−9 for killed) and what the run said; outputs go below `to`, and its state into `to`.work."""
        params = to.with_suffix(".yaml")
        params.write_text(yaml.safe_dump(PARAMS | {"seed": 3, "data": {"seed": 3}, stage: PARAMS[stage] | changed}))
        order = {
            "stage": stage,
            "arguments": self.inputs[stage]
            | {"to": str(to / "model"), "log": str(to / "log"), "params_file": str(params)},
            "environment": {"COVID_DOCTOR_WORK": str(to.with_suffix(".work"))},
            "log": str(to.with_suffix(".log")),
            "kill": kill,
        }
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        while (answer := self.process.stdout.readline().strip()) == "ready":
            pass
        return int(answer), Path(order["log"]).read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(20)


def write_inputs(to: Path) -> dict[str, dict[str, str]]:
    """Small data, and a base and adapters with random weights, as the stages' arguments."""
    folders = tiny_models.write(to)
    samples = [
        {"history": [["您好", "请说"]] * (i % 2), "instruction": f"{i}岁，咳嗽{'很' * (i % 5)}久", "output": text}
        for i, text in enumerate(tiny_models.TEXTS * 6)
    ]
    pairs = [
        {"history": [], "instruction": s["instruction"], "chosen": s["output"], "rejected": s["output"][: 3 + i % 4]}
        for i, s in enumerate(samples)
    ]
    files = {"train": samples[:18], "validate": samples[18:], "better": pairs[:18], "worse": pairs[18:]}
    for name, rows in files.items():
        (to / name).write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    dialogues = {"train": str(to / "train"), "validate": str(to / "validate")}
    base = {"base": str(folders.base)}
    return {
        "base": dialogues,
        "sft": dialogues | base,
        "rm": {"train": str(to / "better"), "validate": str(to / "worse")} | base,
        "ppo": dialogues | {"sft": str(folders.sft), "rm": str(folders.rm)} | base,
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    runs = Runs(tmp_path_factory.mktemp("resume"))
    yield runs
    runs.close()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below the folder, hidden and temporary ones included."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def newest(to: Path) -> Path:
    return max(to.with_suffix(".work").glob("*/*/checkpoint-*"), key=checkpoints.step)


def truncate(to: Path) -> str:
    """Cut off the newest checkpoint's weights; what must be said of it."""
    file = next(newest(to).glob("*.safetensors"))
    os.truncate(file, file.stat().st_size // 2)
    return f"{newest(to).name}: {file.name} is truncated or altered; the checkpoint before it is used\n"


def flip_a_bit(to: Path) -> str:
    file = sorted(newest(to).glob("*.safetensors"))[-1]
    content = bytearray(file.read_bytes())
    content[-9] ^= 1
    file.write_bytes(content)
    return f"{newest(to).name}: {file.name} is truncated or altered; the checkpoint before it is used\n"


def spoil_the_seal(to: Path) -> str:
    (newest(to) / checkpoints.SEAL).write_bytes(b"\xff\x00{")
    return f"{newest(to).name}: its seal is damaged; the checkpoint before it is used\n"


def unfinished(to: Path) -> str:
    return f"{newest(to).name}: was never finished; the checkpoint before it is used\n"


def nothing(to: Path) -> str:
    return ""


SUPERVISED_CHAIN = [  # where a run is killed, and what is done to its state before the next one
    ([STEP, 5, "before"], nothing),
    (["torch:save", 2, "midway"], unfinished),  # in the first checkpoint's optimizer
    ([STEP, 19, "after"], truncate),
    (["stages.runtime.checkpoints:seal", 1, "before"], unfinished),
    (["shutil:rmtree", 1, "midway", "checkpoint-"], nothing),  # of the checkpoint that has had its day
    (["stages.runtime.curves:write", 2, "before"], flip_a_bit),  # training is over, outputs are half written
    (["stages.runtime.atomic:write_json", 2, "after"], nothing),
    (["os:replace", 1, "before", "_torn/model"], nothing),
    (["shutil:rmtree", 1, "midway", ".finished"], nothing),  # outputs stand, the state is half deleted
]
PPO_CHAIN = [
    ([UPDATE, 2, "before"], nothing),
    (["stages.rl.trainer:Trainer._optimizer_step", 11, "after"], nothing),
    (["stages.rl.checkpoint:save_file", 2, "midway"], nothing),  # in the optimizer: never took its final name
    (["stages.runtime.checkpoints:seal", 1, "before"], nothing),
    ([UPDATE, 4, "before"], truncate),
    (["stages.generation.generate:generate", 2, "before"], flip_a_bit),
    (["stages.models.stack:save", 1, "after"], spoil_the_seal),
    (["safetensors.torch:save_file", 2, "midway"], nothing),
    (["shutil:rmtree", 1, "midway", ".finished"], nothing),
]


@pytest.mark.parametrize("stage", ["base", "sft", "rm", "ppo"])
def test_a_killed_stage_ends_with_the_same_bytes(runs, stage):
    whole, torn = runs.top / f"{stage}_whole", runs.top / f"{stage}_torn"
    code, said = runs.run(stage, whole)
    assert code == 0, said
    expected = ""
    for kill, damage in PPO_CHAIN if stage == "ppo" else SUPERVISED_CHAIN:
        code, said = runs.run(stage, torn, kill)
        assert code == -9, f"{kill} did not come up: {said}"
        assert expected in said
        expected = damage(torn)
    code, said = runs.run(stage, torn)
    assert code == 0, said
    assert expected in said
    assert contents(torn) == contents(whole)
    for to in (whole, torn):
        assert not contents(to.with_suffix(".work")), "a finished run leaves no state"


def test_a_changed_parameter_finds_nothing_to_go_on_from(runs):
    torn, whole = runs.top / "changed_torn", runs.top / "changed_whole"
    assert runs.run("ppo", torn, [UPDATE, 6, "before"])[0] == -9
    assert newest(torn).name == "checkpoint-4"
    code, said = runs.run("ppo", torn, learning_rate=1e-3)
    assert code == 0 and "found the state" not in said, said
    assert runs.run("ppo", whole, learning_rate=1e-3)[0] == 0
    assert contents(torn) == contents(whole)
    assert newest(torn).name == "checkpoint-4", "going back to the old value loses nothing"


def test_a_loss_that_is_no_number_ends_the_run_in_one_line(runs):
    to, base = runs.top / "nan", runs.top / "nan_base"
    shutil.copytree(runs.inputs["sft"]["base"], base)
    weights = load_file(base / "model.safetensors")
    save_file({name: weight * 1e30 for name, weight in weights.items()}, base / "model.safetensors", {"format": "pt"})
    base_model.write_pointer(base, tiny_models.MODEL)
    with mock.patch.dict(runs.inputs["sft"], base=str(base)):
        code, said = runs.run("sft", to)
    assert code == 1
    assert said.splitlines()[-1].endswith(
        "error: step 2: loss is nan. The checkpoint before it is kept; lower learning_rate, or use bfloat16 or float32 "
        "instead of float16"
    )
    assert "Traceback" not in said
    assert not contents(to)


def write_checkpoint(work: Path, step: int, best: int) -> None:
    folder = work / f"checkpoint-{step}"
    folder.mkdir()
    state = {"best_model_checkpoint": str(work / f"checkpoint-{best}")}
    (folder / "trainer_state.json").write_text(json.dumps(state))
    checkpoints.seal(folder)


def test_the_best_checkpoint_is_kept_and_one_to_fall_back_on(tmp_path):
    for step, best in ((4, 4), (8, 4), (12, 4), (16, 16)):
        write_checkpoint(tmp_path, step, best)
        checkpoints.rotate(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-12", "checkpoint-16", "checkpoint-4"]


def test_the_best_checkpoint_is_found_where_the_work_folder_lies_now(tmp_path):
    from transformers import TrainerControl, TrainerState, TrainingArguments
    from transformers.trainer_callback import CallbackHandler

    state = TrainerState(best_global_step=4, best_model_checkpoint=None)  # what is left of a path that is gone
    handler = CallbackHandler(trainer.callbacks(tmp_path), None, None, None, None)
    handler.on_train_begin(TrainingArguments(output_dir=str(tmp_path)), state, TrainerControl())
    assert state.best_model_checkpoint == str(tmp_path / "checkpoint-4")


def test_a_checkpoint_whose_best_is_damaged_is_not_used(tmp_path, capsys):
    for step, best in ((4, 4), (8, 4), (12, 8), (16, 8)):
        write_checkpoint(tmp_path, step, best)
    with (tmp_path / "checkpoint-8" / "trainer_state.json").open("a") as file:
        file.write(" ")
    assert checkpoints.latest(tmp_path) == tmp_path / "checkpoint-4"
    fault = "trainer_state.json is truncated or altered"
    assert capsys.readouterr().err.splitlines() == [
        f"checkpoint-16: it ends with the weights of checkpoint-8, and there {fault}; the checkpoint before it is used",
        f"checkpoint-12: it ends with the weights of checkpoint-8, and there {fault}; the checkpoint before it is used",
        f"checkpoint-8: {fault}; the checkpoint before it is used",
    ]
