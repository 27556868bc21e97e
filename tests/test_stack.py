"""Adapters on one base: a stack is the model with merged weights, and one that does not fit is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import peft
import pytest
import tiny_models
import tiny_run
import torch
import yaml

from stages import ppo, predict
from stages.models import base_model, reward, stack
from stages.rl.config import PpoConfig
from stages.runtime.errors import UserError
from stages.runtime.resume import hash_path

torch.set_num_threads(1)
IDS = torch.tensor([[5, 60, 9, 200, 31, 4]])


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tiny_models.write(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def policy(folders):
    """A ppo adapter on top of sft."""
    tiny_models.write_adapter(folders.base.with_name("ppo"), "ppo", folders.base, [folders.sft], seed=3)
    return folders.base.with_name("ppo")


@pytest.fixture(scope="module")
def resumed(folders):
    """A ppo adapter on the bare base: what `resume_lora_training` leaves."""
    tiny_models.write_adapter(folders.base.with_name("resumed"), "ppo", folders.base, [], seed=4)
    return folders.base.with_name("resumed")


@pytest.fixture
def origin(folders):
    return base_model.read(folders.base)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_stacked_adapters_are_merged_weights(origin, folders, policy):
    stacked = logits(stack.load(origin.causal_lm(), [folders.sft, policy]))
    expected = logits(tiny_models.multiply_out(tiny_models.multiply_out(origin.causal_lm(), folders.sft), policy))
    torch.testing.assert_close(stacked, expected, atol=1e-4, rtol=0)
    alone = logits(stack.load(origin.causal_lm(), [folders.sft]))
    assert (stacked - alone).abs().max() > 0.1 and (alone - logits(origin.causal_lm())).abs().max() > 0.1


def test_adapters_are_read_on_the_cpu(origin, folders, work, tmp_path, monkeypatch):
    """Left alone, PEFT asks which device there is, and each process brings them to the first GPU; the Trainer too."""

    def asked():
        raise AssertionError("PEFT chooses the device")

    for module in (peft.peft_model, peft.utils.save_and_load):
        monkeypatch.setattr(module, "infer_device", asked)
    stack.load(origin.causal_lm(), [folders.sft, folders.rm])
    ppo.build(origin, folders.sft, folders.rm, PpoConfig(resume_lora_training=True), "cpu")
    tiny_run.write(tmp_path / "in")
    tiny_run.run_sft(tmp_path / "in", tmp_path / "out")
    with pytest.raises(AssertionError, match="chooses the device"):
        peft.PeftModel.from_pretrained(origin.causal_lm(), str(folders.sft))


def test_a_new_adapter_changes_nothing(origin, folders):
    model = stack.load(origin.causal_lm(), [folders.sft])
    before = logits(model)
    model.add_adapter("ppo", tiny_models.LORA.config(task_type="CAUSAL_LM"))
    stack.activate(model, ["sft", "ppo"], trainable="ppo")
    assert torch.equal(logits(model), before)


def trainable(model):
    return {name.split(".")[-2] for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("trained", [None, "ppo"])
def test_a_view_is_left_as_it_was_entered(origin, folders, trained):
    model = stack.load(origin.causal_lm(), [folders.sft, folders.rm])
    model.add_adapter("ppo", tiny_models.LORA.config(task_type="CAUSAL_LM"))
    stack.activate(model, ["sft", "ppo"], trainable=trained)
    with_gradients = {trained} - {None}
    assert trainable(model) == with_gradients
    before = logits(model)
    views = {
        (): logits(origin.causal_lm()),
        ("sft",): logits(stack.load(origin.causal_lm(), [folders.sft])),
        ("reward",): logits(stack.load(origin.causal_lm(), [folders.rm])),
    }
    for names, expected in views.items():
        with stack.active(model, names):
            assert not trainable(model) or not names  # switching the adapters off says nothing about gradients
            torch.testing.assert_close(logits(model), expected, atol=1e-6, rtol=0)
        assert trainable(model) == with_gradients
        assert model.base_model.active_adapters == ["sft", "ppo"]
        assert torch.equal(logits(model), before)
    with pytest.raises(ZeroDivisionError), stack.active(model, ["reward"]):
        raise ZeroDivisionError
    assert trainable(model) == with_gradients and torch.equal(logits(model), before)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_merged_restores_the_very_weights(origin, folders, policy, dtype):
    origin = replace(origin, model=origin.model.replace(dtype=dtype))
    model = stack.load(origin.causal_lm(), [folders.sft, folders.rm, policy])
    stack.activate(model, ["sft", "ppo"], trainable="ppo")
    stacked, before = logits(model), {name: p.clone() for name, p in model.state_dict().items()}
    with stack.merged(model):
        inside = logits(model)
        assert not torch.equal(inside, stacked)
        atol = 1e-4 if dtype == "float32" else 0.1 * float(stacked.abs().max())
        torch.testing.assert_close(inside, stacked, atol=atol, rtol=0)
    with pytest.raises(KeyboardInterrupt), stack.merged(model):
        raise KeyboardInterrupt
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())
    assert torch.equal(logits(model), stacked)
    with stack.merged(model, only_if=False):
        assert torch.equal(logits(model), stacked)


def test_what_was_saved_is_what_loads(origin, folders, tmp_path):
    model = stack.load(origin.causal_lm(), [folders.sft])
    tmp_path.joinpath("again").mkdir()
    stack.save(model, "sft", "sft", origin, [], tmp_path / "again")
    assert (tmp_path / "again" / stack.WEIGHTS).read_bytes() == (folders.sft / stack.WEIGHTS).read_bytes()
    assert torch.equal(logits(stack.load(origin.causal_lm(), [tmp_path / "again"])), logits(model))


def test_the_top_adapter_names_the_stack(origin, folders, policy, resumed):
    assert stack.resolve(origin, []) == []
    assert stack.resolve(origin, [folders.sft]) == [folders.sft]
    assert stack.resolve(origin, [folders.sft, policy]) == [folders.sft, policy]
    assert stack.resolve(origin, [folders.sft, resumed]) == [resumed]
    assert stack.lineage(policy).below == {"sft": hash_path(folders.sft / stack.WEIGHTS)}


def test_a_stack_that_does_not_fit_is_refused_naming_both_sides(origin, folders, policy, tmp_path):
    tiny_models.write_base(tmp_path / "other", seed=9)
    other = base_model.read(tmp_path / "other")
    with pytest.raises(UserError, match=f"{folders.sft} was trained on base tiny:.*, but {other.folder} is tiny:"):
        stack.resolve(other, [folders.sft])

    tiny_models.write_adapter(tmp_path / "sft", "sft", folders.base, seed=8)
    old, new = (hash_path(folder / stack.WEIGHTS)[:12] for folder in (folders.sft, tmp_path / "sft"))
    with pytest.raises(UserError, match=f"{policy} was trained on `sft` {old}, but {tmp_path / 'sft'} is {new}"):
        stack.resolve(origin, [tmp_path / "sft", policy])
    with pytest.raises(UserError, match="on top of adapter `sft`, which was not given"):
        stack.resolve(origin, [policy])

    with (tmp_path / "sft" / stack.WEIGHTS).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(UserError, match=r"is not the file that its lineage\.json describes"):
        stack.resolve(origin, [tmp_path / "sft"])
    (tmp_path / "sft" / stack.LINEAGE).write_text("{}")
    with pytest.raises(UserError, match="not the lineage of an adapter"):
        stack.lineage(tmp_path / "sft")


def test_another_adapter_in_the_place_of_one_is_refused(origin, folders, policy):
    with pytest.raises(UserError, match=f"{folders.rm} holds the adapter `reward`, and `sft` is needed"):
        stack.resolve(origin, [folders.rm], "sft")
    assert stack.resolve(origin, [folders.sft, policy], "ppo") == [folders.sft, policy]


@pytest.mark.parametrize("file", [stack.CONFIG, reward.HEAD])
def test_a_changed_configuration_or_head_is_refused(origin, folders, file, tmp_path):
    copied = shutil.copytree(folders.rm, tmp_path / "rm")
    assert stack.resolve(origin, [copied], "reward") == [copied]
    content = (copied / file).read_bytes()
    (copied / file).write_bytes(content.replace(b'"lora_alpha": ', b'"lora_alpha": 1') + b" ")
    with pytest.raises(UserError, match=f"{copied}/{file} is not the file that its lineage"):
        stack.resolve(origin, [copied], "reward")
    (copied / file).unlink()
    with pytest.raises(UserError, match=f"{copied}/{file} is not the file that its lineage"):
        stack.resolve(origin, [copied], "reward")


def test_a_changed_byte_of_the_tiny_base_is_refused(folders, tmp_path):
    copied = shutil.copytree(folders.base, tmp_path / "base")
    weights = bytearray((copied / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (copied / "model.safetensors").write_bytes(weights)
    with pytest.raises(UserError, match=f"{copied}: its files are not those that base.json describes"):
        base_model.read(copied).causal_lm()


def write_params(to: Path) -> Path:
    document = yaml.safe_load(Path(__file__).parents[1].joinpath("params.yaml").read_text(encoding="utf-8"))
    document["predict"] |= {"max_new_tokens": 4, "batch_size": 2, "max_source_length": 60}
    (to / "params.yaml").write_text(yaml.safe_dump(document))
    return to / "params.yaml"


def write_samples(to: Path) -> Path:
    rows = [{"history": [], "instruction": text, "output": text} for text in tiny_models.TEXTS[:3]]
    (to / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return to / "test.jsonl"


def test_ppo_refuses_before_it_reads_any_weight(folders, tmp_path, monkeypatch, capsys):
    tiny_models.write_base(tmp_path / "other", seed=9)
    monkeypatch.setenv("COVID_DOCTOR_WORK", str(tmp_path / "work"))
    monkeypatch.setattr(base_model.Base, "_load", lambda *a, **k: pytest.fail("weights were read"))
    outputs = {name: tmp_path / name for name in ("to", "log")}
    capsys.readouterr()
    with pytest.raises(SystemExit):
        ppo.main(
            train=write_samples(tmp_path),
            validate=write_samples(tmp_path),
            base=tmp_path / "other",
            sft=folders.sft,
            rm=folders.rm,
            params_file=write_params(tmp_path),
            **outputs,
        )
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and str(folders.rm) in line and str(tmp_path / "other") in line


@pytest.mark.parametrize("mode", ["base", "sft", "ppo", "resumed"])
def test_predict_answers_with_the_stack_that_was_trained(folders, policy, resumed, mode, tmp_path, monkeypatch):
    given, expected = {
        "base": ([], []),
        "sft": ([folders.sft], [folders.sft]),
        "ppo": ([folders.sft, policy], [folders.sft, policy]),
        "resumed": ([folders.sft, resumed], [resumed]),
    }[mode]
    seen = []
    load = stack.load

    def spy(model, chosen):
        seen.append(load(model, chosen))
        return seen[0]

    monkeypatch.setattr(stack, "load", spy)
    predict.main(
        name=mode,
        test=write_samples(tmp_path),
        base=folders.base,
        params_file=write_params(tmp_path),
        adapter=given,
        to=tmp_path / "to",
    )
    twin = base_model.read(folders.base).causal_lm()
    for folder in expected:
        tiny_models.multiply_out(twin, folder)
    torch.testing.assert_close(logits(seen[0]), logits(twin), atol=1e-4, rtol=0)
    assert len((tmp_path / "to").read_text().splitlines()) == 3
