"""What would stop a run hours later is said before anything trains, a line for each."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import parameters
import pytest
import tiny_models

from stages import check
from stages.rl.config import PpoConfig
from stages.runtime import atomic, params, resume

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/sample").symlink_to(ROOT / "data/sample")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COVID_DOCTOR_WORK", str(tmp_path / ".work"))
    return tmp_path


def found(changes: dict[str, Any]) -> list[str]:
    tiny = {"model": {"name": "tiny"} | changes.get("model", {})}
    return list(check.problems(parameters.write(Path(), changes | tiny)))


def test_the_committed_parameters_are_fine(capsys: pytest.CaptureFixture[str]) -> None:
    parameters.write(Path())
    check.main(Path("params.yaml"), Path("reports"))
    said = capsys.readouterr().out.splitlines()
    updates = params.load(ROOT / "params.yaml", "ppo", PpoConfig).updates
    assert said[0].startswith("parameters, data and model fit; sft: ") and said[0].endswith(f"ppo: {updates} steps")
    assert said[1] == "no forecast of the time: sft, rm, ppo did not run here yet"


def test_without_preferences_no_ppo_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    Path("none.json").write_text("[]")
    parameters.write(Path(), {"data": {"preferences": "none.json"}})
    check.main(Path("params.yaml"), Path("reports"))
    said = capsys.readouterr().out
    assert "sft: " in said and "rm: " not in said and "ppo" not in said


def test_the_forecast_is_the_last_runs_pace(capsys: pytest.CaptureFixture[str]) -> None:
    parameters.write(Path(), {"ppo": {"total_episodes": 12800}})
    for stage, seconds in (("preprocess", 60.0), ("sft", 30.0), ("rm", 30.0), ("ppo", 120.0)):
        atomic.write_json(resume.own_root() / "cost" / f"{stage}.json", {"seconds": seconds, "peak_mib": 1536})
    atomic.write_json(Path("reports/ppo/metrics.json"), {"updates": 40})
    check.main(Path("params.yaml"), Path("reports"))
    assert "22 minutes for all stages, 1.5 GiB of memory" in capsys.readouterr().out


def test_every_problem_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    parameters.write(Path(), {"ppo": {"kl_coef": -1}, "rm": {"eval_steps": 7}})
    with Path("params.yaml").open("a") as file:
        file.write("pppo: {}\n")
    with pytest.raises(SystemExit):
        check.main(Path("params.yaml"), Path("reports"))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [
        "error: params.yaml: `rm`: eval_steps 7 is not a multiple of logging_steps 5",
        "error: params.yaml: `ppo.kl_coef` must be at least 0.0, not -1",
        "error: params.yaml: unknown key `pppo`; did you mean `ppo`?",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"dtype": "bfloat16"}}, "model.name: `tiny` is trained in float32"),
        ({"model": {"name": "tinyy"}}, "model.name: tinyy is not `tiny`, an existing folder, or a hub id"),
        ({"model": {"name": "data/sample"}}, "model.name: data/sample has no config.json"),
        (
            {"sft": {"lora": {"target_modules": ["q_proj", "query"]}}},
            "sft.lora.target_modules: the model has no layer `query` that LoRA could be put on; there are",
        ),
        (
            {"ppo": {"lora": {"target_modules": ["lm_head"]}}},
            "ppo.lora.target_modules: the model has no layer `lm_head`",
        ),
        (
            {"rm": {"lora": {"target_modules": ["self_attn"]}}},
            "rm.lora.target_modules: the model has no layer `self_attn`",
        ),
        (
            {"predict": {"max_new_tokens": 800}},
            "predict.max_source_length + predict.max_new_tokens is 1056, and the model reads at most 1024 tokens",
        ),
        ({"sft": {"num_train_epochs": 1e-5}}, "sft.num_train_epochs: 1e-05 of "),
        ({"rm": {"num_train_epochs": 1e-5}}, "rm.num_train_epochs: 1e-05 of "),
        ({"data": {"dialogues": "my data"}}, "my data/train_data.json, my data/validate_data.json"),
        ({"data": {"preferences": "none.json"}}, "data.preferences: none.json: not there; `make data` fetches"),
    ],
)
def test_what_does_not_fit(changes: dict[str, Any], message: str) -> None:
    (line,) = found(changes)
    assert message in line and "\n" not in line


def test_data_that_can_not_be_read() -> None:
    shutil.copytree(ROOT / "data/sample", "own")
    Path("own/validate_data.json").write_text('[["病人：您好", "护士：您好"]]', encoding="utf-8")
    (line,) = found({"data": {"dialogues": "own"}})
    assert line.startswith("own/validate_data.json, dialogue 0, turn 1: expected a text that begins with `医生：`")


def test_without_preferences_there_is_no_reward_model(capsys: pytest.CaptureFixture[str]) -> None:
    Path("none.json").write_text("[]", encoding="utf-8")
    parameters.write(Path(), {"data": {"preferences": "none.json"}})
    check.main(Path("params.yaml"), Path("reports"))
    assert "rm:" not in capsys.readouterr().out


def test_a_local_model(checkout: Path) -> None:
    tiny_models.write_base(checkout / "model")
    config = json.loads((checkout / "model/config.json").read_text())
    assert config["max_position_embeddings"] == 512
    lengths = {"max_source_length": 256, "max_target_length": 256}
    changes = {
        "model": {"name": "model"},
        "sft": {"lora": {"target_modules": ["k_proj"]}},
        "rm": lengths | {"lora": {"target_modules": ["key"]}},
        "evaluate": lengths | {"max_target_length": 257},
    }
    layer, length = found(changes)
    assert "rm.lora.target_modules: the model has no layer `key`" in layer
    assert "evaluate.max_source_length + evaluate.max_target_length is 513, and the model reads at most 512" in length


@pytest.mark.parametrize("name", ["absent", "~/model", "a/b/c"])
def test_neither_a_folder_nor_an_id_on_the_hub(name: str) -> None:
    (line,) = found({"model": {"name": name}})
    assert line == f"model.name: {name} is not `tiny`, an existing folder, or a hub id owner/name"


def test_a_disk_without_room_for_the_model(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_models.write_base(checkout / "model")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9, 9, 9))  # type: ignore[attr-defined]
    (line,) = [each for each in found({"model": {"name": "model"}}) if "disk" in each]
    assert line.startswith("0.0 GiB of disk are free, and the run writes about")


def cut(model: Path) -> None:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def index(model: Path, name: str) -> None:
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))


def template(model: Path, text: str) -> None:
    (model / "chat_template.jinja").write_text(text)


def unknown_normalizer(model: Path) -> None:
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    (model / "tokenizer.json").write_text(json.dumps(tokenizer | {"normalizer": "x"}))


def configure(model: Path, **changed: Any) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | changed))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut, "model.name: model/model.safetensors: not a whole file of weights ("),
        (partial(index, name="absent.safetensors"), "model/absent.safetensors: no such file of weights"),
        (partial(index, name="../outside.safetensors"), "names ../outside.safetensors, which is not a file of this"),
        (partial(template, text="{{ eos_token }}ask away"), "its chat template leaves the question out of the prompt"),
        (partial(template, text="{{ messages[0].nothing.more }}"), "its chat template fails on a question: "),
        (partial(configure, vocab_size=100), "and its embedding 100 rows: they are not of one model"),
        (lambda model: (model / "tokenizer.json").unlink(), "model.name: model can't be loaded: "),
        (partial(configure, eos_token_id="=1+1"), "model.name: model can't be loaded: Validation error for field"),
        (unknown_normalizer, "model.name: model can't be loaded: data did not match any variant"),
    ],
)
def test_a_damaged_local_model(checkout: Path, damage: Callable[[Path], None], message: str) -> None:
    tiny_models.write_base(checkout / "model")
    (checkout / "model/base.json").unlink(missing_ok=True)
    damage(checkout / "model")
    (line,) = found({"model": {"name": "model"}})
    assert message in line and "\n" not in line


def test_a_name_that_no_file_can_have() -> None:
    (line,) = found({"data": {"dialogues": "x" * 9999, "preferences": "x" * 300}})
    assert line.startswith("data.dialogues, data.preferences: xxx") and ": not there" in line and len(line) < 800


def test_a_name_that_a_terminal_would_obey_is_shown() -> None:
    (line,) = found({"data": {"dialogues": "\x1b[31m"}})
    assert r"\x1b[31m/train_data.json" in line and line.isprintable()
