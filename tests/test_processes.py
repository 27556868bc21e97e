"""Two processes do what one does: the same samples in the same order, the same global batch, the same losses."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import yaml

ROOT = Path(__file__).parents[1]
SAMPLES = [
    {"history": [], "instruction": f"发烧{n}天了，怎么办？" + "还咳嗽。" * (n % 5), "output": "多喝水。" * (1 + n % 3)}
    for n in range(40)
]
PAIRS = [
    {"history": [], "instruction": f"嗓子疼{n}天了。", "chosen": "建议做核酸。" * (1 + n % 2), "rejected": "不知道。"}
    for n in range(24)
]


def run(processes: int, to: Path, config: Path, data: Path) -> None:
    to.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}",
         str(ROOT / "tests" / "several_processes.py"), str(to), str(config), str(data)],
        env=os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT),
                          "COVID_DOCTOR_WORK": str(to / "work")},
        cwd=ROOT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[int, Path]:
    top = tmp_path_factory.mktemp("processes")
    data = top / "data"
    tiny_models.write(data)
    for name, rows in (("train", SAMPLES), ("validate", SAMPLES[:8]), ("test", SAMPLES[:11]),
                       ("preferences_train", PAIRS), ("preferences_validate", PAIRS[:8])):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (data / f"{name}.jsonl").write_text(text, encoding="utf-8")
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    for stage in ("sft", "rm"):
        params[stage] |= {"num_train_epochs": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2,
                          "logging_steps": 1, "eval_steps": 4, "max_source_length": 96, "max_target_length": 32}
        params[stage]["lora"]["dropout"] = 0.0  # each process draws its own
    params["ppo"] |= {"total_episodes": 24, "batch_size": 8, "per_device_train_batch_size": 2, "save_steps": 2,
                      "max_source_length": 96, "min_response_length": 6, "max_response_length": 12}
    params["predict"] |= {"max_source_length": 96, "max_new_tokens": 12, "batch_size": 4, "bootstrap_samples": 100}
    config = top / "params.yaml"
    config.write_text(yaml.safe_dump(params), encoding="utf-8")
    for processes in (1, 2):
        run(processes, top / str(processes), config, data)
    return {processes: top / str(processes) for processes in (1, 2)}


@pytest.mark.parametrize("stage", ["sft", "rm", "ppo"])
def test_the_curve_is_that_of_one_process(runs, stage):
    curves = {}
    for processes, folder in runs.items():
        with (folder / f"{stage}.csv").open() as file:
            curves[processes] = list(csv.DictReader(file))
        assert json.loads((folder / stage / "lineage.json").read_text())["environment"]["processes"] == processes
    assert len(curves[1]) == len(curves[2]) >= 3
    for one, two in zip(curves[1], curves[2], strict=True):
        for name in one:
            # six digits are written; sums are taken in another order
            assert float(two[name]) == pytest.approx(float(one[name]), rel=2e-5, abs=1e-5), (one["step"], name)


def test_the_answers_are_those_of_one_process(runs):
    assert (runs[1] / "predict.jsonl").read_bytes() == (runs[2] / "predict.jsonl").read_bytes()
    assert (runs[1] / "predict.json").read_bytes() == (runs[2] / "predict.json").read_bytes()
