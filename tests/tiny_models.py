"""A chat model of some thousand parameters and adapters with random weights on it, in folders like those of the stages.

Nothing is zero and nothing is small: an adapter that is forgotten, doubled or swapped changes every number.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file

from stages.models import base_model, reward, stack, tiny
from stages.models.lora import LoraConfig
from stages.runtime import atomic

TEXTS = [
    "医生您好，我发烧三天了，需要做核酸检测吗？",
    "您好，体温多少？有没有咳嗽、乏力？建议先在家观察，多喝水。",
    "三十八度二，嗓子有点疼。",
    "可以吃布洛芬退烧，如果呼吸困难请马上去医院。",
]
ARCHITECTURE = tiny.Architecture(
    vocab_size=300,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=512,
)
LORA = LoraConfig(r=2, alpha=6, dropout=0.1, target_modules="all-linear")
MODEL = base_model.ModelConfig(
    name="tiny",
    revision=None,
    trust_remote_code=False,
    dtype="float32",
    attn_implementation="sdpa",
    quantization="none",
    gradient_checkpointing=False,
    fsdp=False,
    chatglm_first_round=0,
)


class Folders(NamedTuple):
    base: Path
    sft: Path
    rm: Path


def write(to: Path) -> Folders:
    """A base, an sft adapter and a reward adapter with its head, below `to`."""
    folders = Folders(to / "base", to / "sft", to / "rm")
    write_base(folders.base)
    write_adapter(folders.sft, "sft", folders.base, seed=1)
    write_adapter(folders.rm, "reward", folders.base, seed=2)
    return folders


def write_base(to: Path, seed: int = 0) -> None:
    tokenizer = tiny.tokenizer(TEXTS, ARCHITECTURE)
    network = tiny.network(ARCHITECTURE, tokenizer)
    randomize(network.parameters(), seed)
    with atomic.folder(to) as folder:
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        base_model.write_pointer(folder, MODEL)


def write_adapter(to: Path, name: str, base: Path, below: list[Path] = [], seed: int = 1) -> None:
    """An adapter that `stack.save` wrote; with a scalar head if it is the reward model's."""
    from peft import get_peft_model

    origin = base_model.read(base)
    model = get_peft_model(origin.causal_lm(), LORA.config(task_type="CAUSAL_LM"))
    randomize((p for n, p in model.named_parameters() if ".lora_" in n), seed)
    with atomic.folder(to) as folder:
        if name == "reward":
            head = torch.empty(1, ARCHITECTURE.hidden_size)
            randomize([head], seed)
            save_file({"weight": head}, folder / reward.HEAD)
        stack.save(model, "default", name, origin, below, folder)


def randomize(parameters: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in parameters:
            p.copy_(torch.randn(p.shape, generator=generator) * 0.3 + (1.0 if p.dim() == 1 else 0.0))


def multiply_out(model: Any, folder: Path) -> Any:
    """Add an adapter into a full model's weights, from the files alone."""
    weights = load_file(folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    with torch.no_grad():
        for name, a in weights.items():
            if name.endswith(".lora_A.weight"):
                layer = model.get_submodule(name.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
                layer.weight += config["lora_alpha"] / config["r"] * weights[name.replace("lora_A", "lora_B")] @ a
    return model
