"""The original's pickled weights become safetensors, once, without running what the pickle says."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import torch
from chatglm_cases import FIXTURE, ROOT, close, load
from safetensors.torch import load_file
from transformers import AutoTokenizer

from stages.models import base_model
from stages.models.chatglm import convert
from stages.runtime.errors import UserError


def pickled(folder, tensors):
    """A folder such as the original: two pickled shards with their index."""
    folder.mkdir()
    (folder / "config.json").write_text((FIXTURE / "model" / "config.json").read_text())
    (folder / "ice_text.model").write_bytes(b"not read here")
    names = sorted(tensors)
    shards = {"pytorch_model-00001-of-00002.bin": names[::2], "pytorch_model-00002-of-00002.bin": names[1::2]}
    for file, part in shards.items():
        torch.save({name: tensors[name] for name in part}, folder / file)
    index = {"weight_map": {name: file for file, part in shards.items() for name in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


def test_conversion_of_the_pickled_checkpoint(tmp_path, cases):
    tensors = load_file(FIXTURE / "model" / "model.safetensors")
    tensors["transformer.layers.0.attention.rotary_emb.inv_freq"] = torch.ones(4)
    source = pickled(tmp_path / "original", tensors)
    with pytest.raises(OSError, match=r"pickled .*python -m stages\.models\.chatglm\.convert"):
        load(source)
    convert.convert(source, tmp_path / "new")
    assert sorted(p.name for p in (tmp_path / "new").glob("model*")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ]
    with torch.no_grad():
        close(load(tmp_path / "new")(cases["single_prompt.input_ids"]).logits, cases["single_prompt.logits"])
    with pytest.raises(UserError, match="exists already"):
        convert.convert(source, tmp_path / "new")
    (source / "config.json").write_text('{"model_type": "chatglm", "multi_query_attention": true}')
    with pytest.raises(UserError, match="belongs to ChatGLM2"):
        convert.convert(source, tmp_path / "newer")


@pytest.mark.slow
def test_a_full_disk_leaves_nothing_behind(tmp_path):
    """A real refusal to write, in the middle of the second shard."""
    tensors = load_file(FIXTURE / "model" / "model.safetensors")
    source = pickled(tmp_path / "original", tensors)
    (tmp_path / "new").mkdir()
    room = min(file.stat().st_size for file in source.glob("*.bin")) - 1000
    code = (
        "import resource, sys; from pathlib import Path; from stages.models.chatglm import convert; "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room})); "
        "convert.main(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(tmp_path / "new" / "model")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: {tmp_path}/new/model: can't be written (") and done.stderr.count("\n") == 1
    assert not list((tmp_path / "new").iterdir())


def test_the_pipeline_names_the_conversion(tmp_path, tiny):
    """A pickled folder as model.name is refused with the command to run, which is enough."""
    source = pickled(tmp_path / "original", load_file(tiny / "model.safetensors"))
    for name in ("config.json", "ice_text.model", "tokenizer_config.json"):
        (source / name).write_bytes((tiny / name).read_bytes())
    with pytest.raises(UserError, match=r"no \*\.safetensors, and") as refusal:
        base_model.write_pointer(tmp_path, tiny_models.MODEL.replace(name=str(source)))
    command = str(refusal.value).split("`")[1].replace("NEW_FOLDER", str(tmp_path / "new")).split()
    assert command[:4] == ["python", "-m", "stages.models.chatglm.convert", str(source)]
    convert.main(Path(command[3]), Path(command[4]))
    base_model.write_pointer(tmp_path, tiny_models.MODEL.replace(name=str(tmp_path / "new")))
    base = base_model.read(tmp_path)
    assert base.tokenizer().encode("我发烧了") == AutoTokenizer.from_pretrained(tiny).encode("我发烧了")
    ids = torch.tensor([base.tokenizer().encode("我发烧了")])
    with torch.no_grad():
        assert torch.equal(base.causal_lm()(ids).logits, load(tiny)(ids).logits)


class RunsCode:
    def __reduce__(self):
        return os.mkdir, ("ran",)


def test_conversion_reads_tensors_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tensors = load_file(FIXTURE / "model" / "model.safetensors")
    source = pickled(tmp_path / "original", tensors)
    shard = source / "pytorch_model-00002-of-00002.bin"
    for bad, message in [
        (lambda: torch.save({"x": RunsCode()}, shard), "not a file of plain tensors"),
        (lambda: shard.write_bytes(pickle.dumps(RunsCode(), protocol=2)), "not a file of plain tensors"),
        (lambda: torch.save({"x": torch.ones(1)}, shard), "`x` is .* config.json asks for none"),
        (lambda: torch.save({}, shard), "missing"),
        (shard.unlink, "has no pytorch_model-00002"),
    ]:
        bad()
        with pytest.raises(UserError, match=message):
            convert.convert(source, tmp_path / "new")
        assert not (tmp_path / "new").exists()
        assert not (tmp_path / "ran").exists()
