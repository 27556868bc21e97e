"""The layers of ChatGLM-6B: two-channel rotary attention and blocks; parameter names are those of the checkpoint."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from stages.models.chatglm.configuration import ChatGLMConfig

RESIDUAL_SCALE = math.sqrt(2 * 28)
"""28 whatever the number of layers: the original never passes the layer count to its blocks."""

ROTARY_BASE = 10000.0


def rotary_frequencies(head_dim: int, device: torch.device | None = None) -> Tensor:
    """10000^(−2j/r) for j = 0 … r/2−1 with r = head_dim/2, rounded to float16 as the released weights expect.

    Returns:
        float32 [head_dim / 4].
    """
    half = head_dim // 2
    exponents = torch.arange(0, half, 2, dtype=torch.float32, device=device) / half
    return (1.0 / ROTARY_BASE**exponents).half().float()


def rotary_angles(position_ids: Tensor, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Cosine and sine for both channels: the first half of a head turns with channel 0, the second with channel 1.

    A float16 model gets angles rounded to float16, as in the original; every other dtype gets exact float32 ones
    (bfloat16 can't even count past 256).

    Args:
        position_ids: [b, 2, s].
        head_dim: a multiple of 4.
        dtype: the model's.

    Returns:
        Two tensors [b, 1, s, head_dim], float16 or float32.
    """
    precision = torch.float16 if dtype == torch.float16 else torch.float32
    frequencies = rotary_frequencies(head_dim, position_ids.device).to(precision)
    angles = position_ids[..., None].to(precision) * frequencies  # [b, 2, s, r/2]
    angles = torch.cat((angles, angles), dim=-1)
    angles = torch.cat((angles[:, 0], angles[:, 1]), dim=-1)[:, None]  # [b, 1, s, head_dim]
    return angles.cos(), angles.sin()


def rotate(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply the rotation to queries or keys [b, heads, s, head_dim], in the precision of `cos` and `sin`.

    Within each half of the head, x·cos + (−x2, x1)·sin, where x1 and x2 are the halves of that half.
    """
    quarters = states.to(cos.dtype).unflatten(-1, (2, 2, -1))  # channel, half, r/2
    turned = torch.stack((-quarters[..., 1, :], quarters[..., 0, :]), dim=-2).flatten(-3)
    return (states * cos + turned * sin).to(states.dtype)


def eager_attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **_: Any
) -> tuple[Tensor, Tensor]:
    """Plain attention that also returns its weights [b, heads, q, k].

    Scores are divided by the layer's number before the product and multiplied by it in float32: float16 would
    overflow otherwise.
    """
    shrink = module.layer_idx + 1
    scores = (query * (module.scaling / shrink)) @ key.transpose(2, 3)
    scores = scores.float() * shrink
    if attention_mask is not None:
        scores = scores + attention_mask
    weights = scores.softmax(-1).to(value.dtype)
    return (weights @ value).transpose(1, 2), weights


class ChatGLMLayerNorm(nn.LayerNorm):
    """LayerNorm that may be kept in float32 within a half-precision model."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.to(self.weight.dtype)).to(input.dtype)


class ChatGLMAttention(nn.Module):
    """Multi-head attention; the rows of `query_key_value` are laid out head by head as q, k, v (not q | k | v)."""

    is_causal = False  # the mask says it all: SDPA must not add a causal one where none is given

    def __init__(self, config: ChatGLMConfig, layer_idx: int):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.num_heads = config.num_attention_heads
        self.scaling = (config.hidden_size // config.num_attention_heads) ** -0.5
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """[b, s, hidden] → the same, and the weights [b, heads, s, k] where the implementation gives them."""
        batch, length, _ = hidden_states.shape
        mixed = self.query_key_value(hidden_states).view(batch, length, self.num_heads, -1).transpose(1, 2)
        query, key, value = mixed.chunk(3, dim=-1)
        query, key = rotate(query, *rotary), rotate(key, *rotary)
        if past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        if attention_mask is not None and attention_mask.dtype != query.dtype:
            attention_mask = attention_mask.clamp(min=torch.finfo(query.dtype).min).to(query.dtype)

        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention
        )
        output, weights = attend(self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs)
        return self.dense(output.reshape(batch, length, -1)), weights


class ChatGLMMLP(nn.Module):
    """hidden → inner, GELU (tanh form), inner → hidden. No gate, although the original calls it GLU."""

    def __init__(self, config: ChatGLMConfig):
        super().__init__()
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.inner_hidden_size)
        self.dense_4h_to_h = nn.Linear(config.inner_hidden_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.dense_4h_to_h(F.gelu(self.dense_h_to_4h(hidden_states), approximate="tanh"))


class ChatGLMBlock(GradientCheckpointingLayer):
    """u = LN(x); y = α·u + attention(u); z = LN(y); out = α·z + mlp(z), with α = RESIDUAL_SCALE."""

    def __init__(self, config: ChatGLMConfig, layer_idx: int):
        super().__init__()
        self.input_layernorm = ChatGLMLayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.attention = ChatGLMAttention(config, layer_idx)
        self.post_attention_layernorm = ChatGLMLayerNorm(config.hidden_size, eps=config.layernorm_epsilon)
        self.mlp = ChatGLMMLP(config)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None,
        rotary: tuple[Tensor, Tensor],
        past_key_values: Cache | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """[b, s, hidden] → the same."""
        normed = self.input_layernorm(hidden_states)
        attended, _ = self.attention(normed, attention_mask, rotary, past_key_values, **kwargs)
        normed = self.post_attention_layernorm(RESIDUAL_SCALE * normed + attended)
        return RESIDUAL_SCALE * normed + self.mlp(normed)
