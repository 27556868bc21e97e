"""The reference cases, the models and the tokenizers that the ChatGLM tests share, to read only."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chatglm_cases import FIXTURE, load
from chatglm_fixture.tiny import build_tiny_chatglm
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoTokenizer


@pytest.fixture(scope="session")
def cases() -> dict[str, Tensor]:
    """Inputs and outputs of the original code: `<case>.<name>` → tensor, whole numbers as int64."""
    tensors = load_file(FIXTURE / "cases.safetensors")
    return {name: t.long() if t.dtype == torch.int32 else t for name, t in tensors.items()}


@pytest.fixture(params=["sdpa", "eager"], scope="session")
def model(request: pytest.FixtureRequest) -> Any:
    return load(attn_implementation=request.param)


@pytest.fixture(scope="session")
def sdpa() -> Any:
    return load()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights with a small vocabulary of its own."""
    return build_tiny_chatglm(tmp_path_factory.mktemp("chatglm") / "tiny")


@pytest.fixture(scope="session")
def tokenizer(chatglm_vocabulary: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The real one, from a folder such as the hub has it."""
    folder = tmp_path_factory.mktemp("real")
    (folder / "ice_text.model").write_bytes(chatglm_vocabulary.read_bytes())
    remote = {name: f"modeling_chatglm.{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForSeq2SeqLM")}
    config = json.loads((FIXTURE / "model" / "config.json").read_text()) | {"auto_map": remote, "quantization_bit": 0}
    (folder / "config.json").write_text(json.dumps(config))
    hub = {
        "name_or_path": "THUDM/chatglm-6b",
        "tokenizer_class": "ChatGLMTokenizer",
        "auto_map": {"AutoTokenizer": ["tokenization_chatglm.ChatGLMTokenizer", None]},
        "end_token": "</s>",
        "num_image_tokens": 0,
        "do_lower_case": False,
        "remove_space": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(hub))
    return AutoTokenizer.from_pretrained(folder, padding_side="left", local_files_only=True)


@pytest.fixture(scope="session")
def texts() -> Any:
    """Texts with the ids and tokens that the original tokenizer gave."""
    return json.loads((FIXTURE / "tokenization.json").read_text(encoding="utf-8"))
