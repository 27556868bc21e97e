"""What fits where: the GPU memory that each stage needs under each profile, from the models' sizes alone.

    python -m benchmarks.memory                       # the table of the README, GiB
    python -m benchmarks.memory --parts chatglm-6b    # what a profile's numbers are made of

A stage needs its weights, and the largest of its phases on top. Every sequence counts at its full length.

frozen weights   parameters × bytes; in 8 or 4 bits the linear layers of the blocks alone
adapters         4 bytes per weight, and 12 more (gradient, Adam's two moments) where it trains
activations      what autograd keeps: per token and block, the inputs of the norms (in float32 where they compute in
                 it), of attention (queries, keys, values as they come out of the projection or are repeated for the
                 groups, and its output), of the MLP's activation and product, and of each LoRA layer (its own copy
                 where it casts, and a byte per element for dropout); recomputed: each block's input, and one block
in flight        twice the widest layer's output, and a mask of length² per sequence; without gradients, what a
                 block holds at its widest place
LM head          sft: the answers' tokens × vocabulary, ppo: lm_head_chunk × vocabulary; as logits (ppo's in
                 float32) and three float32 tensors
generating       keys and values of every block, and the float64 sums of sampling
merged copies    a second copy of the layers that carry LoRA

Left out: the CUDA context, cuBLAS' workspace, and what the allocator loses to fragments. `benchmarks.memory_check`
measures how far off the method is.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages import profile
from stages.base import BaseConfig
from stages.generation.steps import PROMPT_TOKENS
from stages.models import base_model
from stages.models.base_model import ModelConfig
from stages.models.lora import LoraConfig
from stages.predict import PredictConfig
from stages.preference.config import RmConfig
from stages.rl.config import PpoConfig
from stages.runtime import params, resume
from stages.scoring.scorer import EvaluateConfig
from stages.sft import SftConfig

PROFILES = (
    "chatglm-6b-12gb", "chatglm-6b", "chatglm-6b-80gb",
    "qwen3-0.6b", "qwen3-0.6b-80gb", "qwen3-1.7b", "qwen3-1.7b-80gb", "default",
)  # fmt: skip
STAGES = ("sft", "rm", "ppo", "predict", "evaluate")
GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class Shape:
    """The sizes of a model."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    chatglm: bool = False
    """ChatGLM's block: biases, LayerNorms with a bias, one projection for queries, keys and values, no gate."""

    @property
    def linear(self) -> dict[str, tuple[int, int]]:
        """A block's linear layers: name → inputs, outputs."""
        h, i, q, kv = self.hidden, self.intermediate, self.heads * self.head_dim, self.kv_heads * self.head_dim
        if self.chatglm:
            return {"query_key_value": (h, 3 * h), "dense": (h, h), "dense_h_to_4h": (h, i), "dense_4h_to_h": (i, h)}
        attention = {"q_proj": (h, q), "k_proj": (h, kv), "v_proj": (h, kv), "o_proj": (q, h)}
        return attention | {"gate_proj": (h, i), "up_proj": (h, i), "down_proj": (i, h)}

    @property
    def matrices(self) -> int:
        """Parameters of all blocks' linear layers, without biases."""
        return self.layers * sum(a * b for a, b in self.linear.values())

    @property
    def parameters(self) -> int:
        """All of them; the head is the embeddings."""
        if self.chatglm:
            small = sum(b for _, b in self.linear.values()) + 4 * self.hidden
            final = 2 * self.hidden
        else:
            small, final = 2 * self.hidden + 2 * self.head_dim, self.hidden
        return self.vocab * self.hidden + self.matrices + self.layers * small + final


SHAPES = {
    # config.json of THUDM/chatglm-6b
    "models/chatglm-6b": Shape(4096, 16384, 28, 32, 32, 128, 130528, chatglm=True),
    # config.json of Qwen/Qwen3-0.6B and Qwen/Qwen3-1.7B
    "Qwen/Qwen3-0.6B": Shape(1024, 3072, 28, 16, 8, 128, 151936),
    "Qwen/Qwen3-1.7B": Shape(2048, 6144, 28, 16, 8, 128, 151936),
}


@dataclass(frozen=True)
class Precision:
    """How wide things are, in bytes."""

    activation: int
    norm: int
    """What a norm keeps of its input."""
    lora: int
    """The copy that a LoRA layer keeps of its input; 0: none of its own, it keeps what is there."""


def training(dtype: str) -> Precision:
    """As sft and rm train: half precision under autocast, where norms compute in float32."""
    return Precision(4, 4, 0) if dtype == "float32" else Precision(2, 4, 2)


def scoring(dtype: str, chatglm: bool) -> Precision:
    """As ppo trains: no autocast. Qwen3's norms still compute in float32, and LoRA does."""
    return Precision(4, 4, 0) if dtype == "float32" else Precision(2, 2 if chatglm else 4, 4)


def targets(shape: Shape, lora: LoraConfig) -> list[str]:
    return [n for n in shape.linear if lora.target_modules == "all-linear" or n in lora.target_modules]


def kept_per_token(shape: Shape, precision: Precision, adapted: list[str], dropout: float) -> int:
    """Bytes that autograd keeps of one token in one block."""
    a, h, i = precision.activation, shape.hidden, shape.intermediate
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    norms = 2 * h * precision.norm
    if shape.chatglm:
        inner = (3 * h + 3 * h) * a + i * a  # the projection whole, as values are a part of it; GELU's input
    else:
        norms += (q + kv) * precision.norm
        inner = 4 * q * a + 3 * i * a  # keys and values once per query head; gate, its activation, up
    inputs = [(shape.linear[name][0], name) for name in adapted]
    if precision.lora:
        lora = sum(width for width, _ in inputs) * precision.lora
    elif dropout:
        lora = sum(width for width, _ in inputs) * a
    else:  # the same input is kept once; attention's output is kept already
        once = {(w, "up_proj" if n == "gate_proj" else "q_proj" if n in ("k_proj", "v_proj") else n) for w, n in inputs}
        lora = sum(width for width, name in once if name not in ("o_proj", "dense")) * a
    return norms + inner + lora + (sum(width for width, _ in inputs) if dropout else 0)


def in_flight_per_token(shape: Shape, precision: Precision, adapted: list[str]) -> int:
    """Bytes of one token that come and go within a block while it trains."""
    widths = {name: 2 * width * precision.activation for name, (_, width) in shape.linear.items()}
    widths |= {name: 8 * shape.linear[name][1] for name in adapted}  # LoRA's are float32
    return max(widths.values())


def read_per_token(shape: Shape, precision: Precision, adapted: list[str]) -> int:
    """Bytes of one token that are alive at the widest place of a block without gradients.

    There stand some tensors as wide as the stream, and either the MLP's or a LoRA layer's: the base's output, and the
    update before and after its scaling, both float32.
    """
    a, h, i = precision.activation, shape.hidden, shape.intermediate
    widest = (2 if shape.chatglm else 3) * i * a
    for name in adapted:
        inputs, outputs = shape.linear[name]
        copy = 4 * inputs if precision.lora else 0
        gate = i * a if name == "up_proj" else 0
        widest = max(widest, outputs * (a + 8) + copy + gate)
    return (5 if shape.chatglm else 4) * h * a + widest


def trained(shape: Shape, precision: Precision, lora: LoraConfig, rows: int, length: int, recompute: bool) -> int:
    """Bytes on top of the weights while `rows` sequences of `length` tokens go through the trunk and back."""
    adapted = targets(shape, lora)
    tokens, stream = rows * length, shape.hidden * precision.activation
    block = tokens * kept_per_token(shape, precision, adapted, lora.dropout)
    kept = shape.layers * tokens * stream + block if recompute else shape.layers * block
    moving = tokens * (in_flight_per_token(shape, precision, adapted) + stream)
    return kept + moving + rows * length**2 * precision.activation


def read(shape: Shape, precision: Precision, lora: LoraConfig | None, rows: int, length: int) -> int:
    """The same without gradients; without `lora`, the adapters are merged."""
    adapted = targets(shape, lora) if lora else []
    return rows * length * read_per_token(shape, precision, adapted) + rows * length**2 * precision.activation


def adapter(shape: Shape, lora: LoraConfig) -> int:
    """Weights of one adapter."""
    return shape.layers * sum(lora.r * sum(shape.linear[name]) for name in targets(shape, lora))


def weights(shape: Shape, model: ModelConfig) -> int:
    """Bytes of the frozen weights, and of the largest layer in full width where it is quantized."""
    full = BYTES[model.dtype]
    # NF4 with double quantization: half a byte, an 8-bit scale per 64 weights, a float32 one per 256 of these
    narrow = {"none": full, "8bit": 1, "4bit": 0.5 + 1 / 64 + 4 / (64 * 256)}[model.quantization]
    total = (shape.parameters - shape.matrices) * full + round(shape.matrices * narrow)
    if model.quantization != "none":
        total += max(a * b for a, b in shape.linear.values()) * full
    return total


def merged_copy(shape: Shape, model: ModelConfig, lora: LoraConfig, wanted: bool) -> int:
    if not wanted or model.quantization != "none":
        return 0
    copied = sum(a * b for name, (a, b) in shape.linear.items() if name in targets(shape, lora))
    return shape.layers * copied * BYTES[model.dtype]


def generating(shape: Shape, model: ModelConfig, lora: LoraConfig | None, rows: int, prompt: int, new: int) -> int:
    """The whole cache, and reading the prompts, or else a later token: one layer twice, and the sampling."""
    a = BYTES[model.dtype]
    layer = 2 * shape.kv_heads * shape.head_dim * a * rows * (prompt + new)
    at_once = min(rows, max(1, PROMPT_TOKENS["cuda"] // prompt))
    first = read(shape, scoring(model.dtype, shape.chatglm), lora, at_once, prompt)
    later = layer + rows * shape.vocab * (a + 4 + 4 + 8 + 8)
    return shape.layers * layer + max(first, later)


def lm_head(shape: Shape, tokens: int) -> int:
    """Bytes of ppo's head while `tokens` go through it: logits, log-probabilities, probabilities, their product; all
    float32, whatever the head's weights are."""
    return tokens * shape.vocab * 16


def sft(shape: Shape, model: ModelConfig, config: SftConfig) -> dict[str, int]:
    rows, length = config.per_device_train_batch_size, config.max_source_length + config.max_target_length
    precision = training(model.dtype)
    labels = rows * config.max_target_length
    return {
        "adapters": 16 * adapter(shape, config.lora),
        "activations": trained(shape, precision, config.lora, rows, length, model.gradient_checkpointing),
        # the logits, and in float32 these, their log-probabilities and their gradient
        "LM head": labels * shape.vocab * (precision.activation + 12),
    }


def rm(shape: Shape, model: ModelConfig, config: RmConfig) -> dict[str, int]:
    """Both answers of a pair go through behind one prompt while it trains (ChatGLM: side by side, as all do when the
    held-out ones are judged)."""
    pairs, source, target = config.per_device_train_batch_size, config.max_source_length, config.max_target_length
    rows, length = (2 * pairs, source + target) if shape.chatglm else (pairs, source + 2 * target)
    precision = training(model.dtype)
    return {
        "adapters": 16 * adapter(shape, config.lora),
        "largest phase": max(
            trained(shape, precision, config.lora, rows, length, model.gradient_checkpointing),
            read(shape, scoring(model.dtype, shape.chatglm), config.lora, 2 * pairs, source + target),
        ),
    }


def ppo(shape: Shape, model: ModelConfig, config: PpoConfig, below: list[LoraConfig]) -> dict[str, int]:
    """The largest of sampling, scoring and learning. `below`: the adapters of sft and rm, frozen."""
    length = config.max_source_length + config.max_response_length
    precision, side = (
        scoring(model.dtype, shape.chatglm),
        min(config.local_rollout_forward_batch_size, config.batch_size),
    )
    rows = max(1, min(config.tokens_per_batch // length, config.batch_size))

    merged = merged_copy(shape, model, config.lora, config.merge_adapters_for_rollouts)
    sampling = merged + generating(
        shape, model, None if merged else config.lora, side, config.max_source_length, config.max_response_length
    )
    judging = merged_copy(
        shape, model, config.lora, config.merge_adapters_for_rollouts and model.dtype == "float32"
    ) + max(
        read(shape, precision, config.lora, rows, length),
        rows * length * shape.hidden * precision.activation
        + lm_head(shape, min(config.lm_head_chunk, rows * config.max_response_length)),
    )
    learning = trained(shape, precision, config.lora, rows, length, model.gradient_checkpointing) + lm_head(
        shape, min(config.lm_head_chunk, rows * config.max_response_length)
    )
    return {
        "adapters": 24 * adapter(shape, config.lora) + 4 * sum(adapter(shape, lora) for lora in below),
        "largest phase": max(sampling, judging, learning),
    }


def predict(shape: Shape, model: ModelConfig, config: PredictConfig, below: list[LoraConfig]) -> dict[str, int]:
    """With the stack of ppo. `below`: the adapters of sft and ppo."""
    merged = merged_copy(shape, model, below[-1], config.merge_adapters)
    lora = None if merged else below[-1]
    return {
        "adapters": 4 * sum(adapter(shape, lora) for lora in below),
        "merged copy": merged,
        "generating": generating(
            shape, model, lora, config.batch_size, config.max_source_length, config.max_new_tokens
        ),
    }


def evaluate(shape: Shape, model: ModelConfig, config: EvaluateConfig, loras: dict[str, LoraConfig]) -> dict[str, int]:
    length = config.max_source_length + config.max_target_length
    precision = scoring(model.dtype, shape.chatglm)
    return {
        "adapters": 4 * sum(adapter(shape, lora) for lora in loras.values()),
        "merged copy": merged_copy(shape, model, loras["rm"], model.dtype == "float32"),
        "activations": read(shape, precision, loras["rm"], max(1, config.tokens_per_batch // length), length),
    }


def parts(name: str) -> dict[str, dict[str, int]]:
    """Stage → part → bytes, under the profile `name`."""
    model, config = profiled(name)
    shape = shape_of(model, config["base"])
    loras = {stage: config[stage].lora for stage in ("sft", "rm", "ppo")}
    found = {
        "sft": sft(shape, model, config["sft"]),
        "rm": rm(shape, model, config["rm"]),
        "ppo": ppo(shape, model, config["ppo"], [loras["sft"], loras["rm"]]),
        "predict": predict(shape, model, config["predict"], [loras["sft"], loras["ppo"]]),
        "evaluate": evaluate(shape, model, config["evaluate"], loras),
    }
    return {stage: {"weights": weights(shape, model)} | found[stage] for stage in STAGES}


def profiled(name: str) -> tuple[ModelConfig, dict[str, Any]]:
    """The `model` section under a profile, and the sections of the stages."""
    forms = {
        "base": BaseConfig,
        "sft": SftConfig,
        "rm": RmConfig,
        "ppo": PpoConfig,
        "predict": PredictConfig,
        "evaluate": EvaluateConfig,
    }
    with tempfile.TemporaryDirectory() as folder:
        config = Path(shutil.copy(resume.ROOT / "profiles" / "default.yaml", Path(folder) / "params.yaml"))
        profile.apply(name, resume.ROOT / "profiles", config)
        model = params.load(config, "model", ModelConfig)
        return model, {section: params.load(config, section, form) for section, form in forms.items()}


def shape_of(model: ModelConfig, base: BaseConfig) -> Shape:
    if model.name in SHAPES:
        return SHAPES[model.name]
    if model.name == base_model.TINY:
        sizes = base.architecture.model_dump()
    else:  # a folder in the checkout
        sizes = json.loads((resume.ROOT / model.name / "config.json").read_text(encoding="utf-8"))
    heads = sizes["num_attention_heads"]
    head_dim = sizes.get("head_dim") or sizes["hidden_size"] // heads
    return Shape(sizes["hidden_size"], sizes["intermediate_size"], sizes["num_hidden_layers"], heads,
                 sizes["num_key_value_heads"], head_dim, sizes["vocab_size"])  # fmt: skip


def table() -> str:
    """GiB per profile and stage; then ChatGLM-6B's SFT of 2 × 1024 tokens, with and without recomputation."""
    lines = [f"{'GiB':<17}{'weights':>9}" + "".join(f"{stage:>9}" for stage in STAGES)]
    for name in PROFILES:
        found = parts(name)
        cells = [found["sft"]["weights"], *(sum(found[stage].values()) for stage in STAGES)]
        lines.append(f"{name:<17}" + "".join(f"{cell / GIB:>9.1f}" for cell in cells))
    with_it, without = (chatglm_sft(recompute) / GIB for recompute in (True, False))
    lines += ["", f"chatglm-6b, sft of 2 × 1024 tokens: {with_it:.1f}; without gradient_checkpointing: {without:.1f}"]
    return "\n".join(lines) + "\n"


def chatglm_sft(recompute: bool) -> int:
    """Bytes of SFT under the profile chatglm-6b, but with 2 × 1024 tokens in a pass."""
    model, config = profiled("chatglm-6b")
    shape = shape_of(model, config["base"])
    short = config["sft"].replace(per_device_train_batch_size=2, max_source_length=896, max_target_length=128)
    model = model.replace(gradient_checkpointing=recompute)
    return weights(shape, model) + sum(sft(shape, model, short).values())


def main() -> None:
    parser = argparse.ArgumentParser(description="GPU memory of each stage, computed")
    parser.add_argument("--parts", metavar="PROFILE", choices=PROFILES, help="what a profile's numbers are made of")
    name = parser.parse_args().parts
    if name is None:
        print(table(), end="")
        return
    for stage, found in parts(name).items():
        said = ", ".join(f"{part} {size / GIB:.2f}" for part, size in found.items())
        print(f"{stage}: {sum(found.values()) / GIB:.2f} GiB = {said}")


if __name__ == "__main__":
    main()
