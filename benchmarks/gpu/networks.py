"""Models of the known shapes with random weights, made on the device: what they cost does not depend on the weights."""

from typing import Any

import torch
from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3ForSequenceClassification

from benchmarks.memory import Shape
from stages.models import chatglm
from stages.models.chatglm.configuration import ChatGLMConfig
from stages.models.chatglm.modeling import ChatGLMForCausalLM, ChatGLMForSequenceClassification

TINY = {
    True: Shape(32, 64, 2, 4, 4, 8, 320, chatglm=True),
    False: Shape(32, 48, 2, 4, 2, 8, 300),
}
"""By whether it is ChatGLM's, for `--tiny`."""
PAD = 0


def end(shape: Shape) -> int:
    return shape.vocab - 1


def make(shape: Shape, dtype: str, device: torch.device, scores: bool = False) -> Any:
    """A frozen model of this shape.

    Args:
        scores: with a head of one number in place of the language model's.
    """
    if shape.chatglm:
        chatglm.register()
        config: Any = ChatGLMConfig(
            hidden_size=shape.hidden, inner_hidden_size=shape.intermediate, num_layers=shape.layers,
            num_attention_heads=shape.heads, vocab_size=shape.vocab, mask_token_id=shape.vocab - 4,
            gmask_token_id=shape.vocab - 3, bos_token_id=shape.vocab - 2, eos_token_id=end(shape), pad_token_id=PAD,
        )  # fmt: skip
        kind: Any = ChatGLMForSequenceClassification if scores else ChatGLMForCausalLM
    else:
        config = Qwen3Config(
            hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=shape.head_dim,
            vocab_size=shape.vocab, tie_word_embeddings=True, eos_token_id=end(shape), pad_token_id=PAD,
            bos_token_id=None, max_position_embeddings=4096,
        )  # fmt: skip
        kind = Qwen3ForSequenceClassification if scores else Qwen3ForCausalLM
    config.num_labels = 1
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with device:  # a copy in float32 on the host would take 24 GB
            model = kind(config)
    finally:
        torch.set_default_dtype(torch.float32)
    return model.requires_grad_(False).eval()


def prompts(shape: Shape, rows: int, length: int) -> list[list[int]]:
    """Random prompts of this length, closed as the model's are."""
    close = [shape.vocab - 3, shape.vocab - 2] if shape.chatglm else []
    ids = torch.randint(1, shape.vocab - 4, (rows, length - len(close)), generator=torch.Generator().manual_seed(1))
    return [[*row, *close] for row in ids.tolist()]
