"""How far `benchmarks.memory` is off: what it computes for random models, beside what PyTorch allocates for them.

    python -m benchmarks.memory_check

Runs on a CPU in seconds: the allocator's own record of a forward and backward pass, of a pass without gradients, of
PPO's LM head, and of a generation, through the code of the stages. What differs on a GPU: the kernels' workspaces.
"""

import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from peft import get_peft_model
from torch import nn
from torch.profiler import ProfilerActivity, profile
from transformers import Qwen3Config, Qwen3ForCausalLM

from benchmarks import memory
from stages.generation import generate
from stages.generation.decoding import PLAIN
from stages.models import forward
from stages.models.chatglm.configuration import ChatGLMConfig
from stages.models.chatglm.modeling import ChatGLMForCausalLM
from stages.models.lora import LoraConfig
from stages.rl import logprobs, maths

SHAPES = {
    "chatglm": memory.Shape(256, 1024, 4, 8, 8, 32, 4000, chatglm=True),
    "qwen3": memory.Shape(256, 768, 4, 8, 4, 64, 4000),
}
ROWS, PROMPT, NEW = 4, 96, 96
GMASK, SOP, END = 3998, 3999, 3997


def allocated(run: Callable[[], Any]) -> int:
    """The most bytes above the start that PyTorch's allocator held while `run` ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    assert record.profiler is not None
    events = record.profiler.kineto_results.events()
    held = most = 0
    for _, size in sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"):
        held += size
        most = max(most, held)
    return most


def network(shape: memory.Shape, dtype: torch.dtype) -> Any:
    """A frozen random model of this shape."""
    torch.manual_seed(0)
    if shape.chatglm:
        config: Any = ChatGLMConfig(
            hidden_size=shape.hidden, inner_hidden_size=shape.intermediate, num_layers=shape.layers,
            num_attention_heads=shape.heads, vocab_size=shape.vocab, mask_token_id=0, gmask_token_id=GMASK,
            bos_token_id=SOP, eos_token_id=END,
        )  # fmt: skip
        model: Any = ChatGLMForCausalLM(config)
    else:
        config = Qwen3Config(
            hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim,
            vocab_size=shape.vocab, tie_word_embeddings=True, eos_token_id=END, pad_token_id=0, bos_token_id=None,
        )  # fmt: skip
        model = Qwen3ForCausalLM(config)
    return model.to(dtype).requires_grad_(False)


def adapted(shape: memory.Shape, dtype: torch.dtype, lora: LoraConfig, recompute: bool) -> Any:
    model = get_peft_model(network(shape, dtype), lora.config(task_type="CAUSAL_LM"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if recompute:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    return model.train()


def batch() -> forward.Batch:
    """Prompts of two lengths, so that there is a mask, and answers."""
    prompts = [[*range(5, 5 + PROMPT - 2 - row % 2), GMASK, SOP] for row in range(ROWS)]
    return forward.to_batch(prompts, [[7] * NEW] * ROWS, 0, "cpu")


def main() -> None:
    warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
    torch.set_num_threads(1)
    print(f"{'':<52}{'computed':>10}{'measured':>10}   MiB")
    for name, case, computed, measured in cases():
        said = f"{name}, {case}"
        print(f"{said:<52}{computed / 2**20:>10.1f}{measured / 2**20:>10.1f}{measured / computed - 1:>+9.0%}")


def cases(names: Iterable[str] = tuple(SHAPES)) -> list[tuple[str, str, int, int]]:
    """Model, what is measured, and its bytes: computed, measured."""
    found = []
    length = PROMPT + NEW
    for name in names:
        shape = SHAPES[name]
        lora = LoraConfig(
            r=8, alpha=16, dropout=0.0, target_modules=("query_key_value",) if shape.chatglm else "all-linear"
        )
        for dtype, autocast in (("float32", False), ("bfloat16", False), ("bfloat16", True)):
            precision = memory.training(dtype) if autocast else memory.scoring(dtype, shape.chatglm)
            if autocast and shape.chatglm:
                precision = replace(precision, norm=2)  # autocast leaves a LayerNorm in bfloat16 on a CPU
            context = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else nullcontext()
            label = f"{dtype}{' autocast' if autocast else ''}"
            data = batch()
            for recompute in (False, True):
                model = adapted(shape, getattr(torch, dtype), lora, recompute)
                with context:
                    forward.hidden_states(model, data).sum().backward()  # the gradients' own memory is there then
                    measured = allocated(lambda m=model, d=data: forward.hidden_states(m, d).sum().backward())
                computed = memory.trained(shape, precision, lora, ROWS, length, recompute)
                found.append((name, f"{label}, trained{', recomputed' if recompute else ''}", computed, measured))
        # In bfloat16 a CPU makes copies in float32 here, of weights and of summands, which a GPU does not.
        precision = memory.scoring("float32", shape.chatglm)
        model = adapted(shape, torch.float32, lora, False)
        with torch.no_grad():
            measured = allocated(lambda m=model, d=data: forward.hidden_states(m, d))
        found.append((name, "float32, read", memory.read(shape, precision, lora, ROWS, length), measured))
        found.append((name, "float32, generated", *generated(shape)))
        for trains in (False, True):
            found.append((name, f"float32, LM head that {'trains' if trains else 'scores'}", *head(shape, trains)))
    return found


def head(shape: memory.Shape, trains: bool) -> tuple[int, int]:
    """PPO's LM head on one chunk of tokens."""
    layer = nn.Linear(shape.hidden, shape.vocab, bias=False).requires_grad_(False)
    states = torch.randn(256, shape.hidden, requires_grad=trains)
    tokens = torch.full((256,), 7)

    def run() -> None:
        if trains:
            logprobs._FrozenHead.apply(states, layer, tokens, 1.0)[0].sum().backward()
        else:
            maths.log_probs_and_entropy(forward.logits(layer, states), tokens, 1.0)

    run()
    return memory.lm_head(shape, 256), allocated(run)


def generated(shape: memory.Shape) -> tuple[int, int]:
    model = network(shape, torch.float32).eval()
    prompts = [[*range(5, 5 + PROMPT - 2), GMASK, SOP]] * ROWS
    decoding = PLAIN

    def run() -> None:
        list(generate.generate(model, prompts, ["a"] * ROWS, decoding, NEW, ROWS, [0], 0))

    settings = memory.profiled("default")[0].replace(dtype="float32")
    return memory.generating(shape, settings, None, ROWS, PROMPT, NEW), allocated(run)


if __name__ == "__main__":
    main()
