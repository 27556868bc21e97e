"""ChatGLM-6B as it is specified: one unpadded row at a time, head by head, from a plain dictionary of weights.

Slow and independent of the model that is tested with it.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

ALPHA = math.sqrt(56)


def positions(ids: list[int], bos: int, gmask: int, mask: int) -> list[list[int]]:
    """Two channels of len(ids) numbers."""
    border = ids.index(bos)
    marker = ids.index(gmask if gmask in ids else mask)
    after = len(ids) - border
    return [[*range(border), *[marker] * after], [*[0] * border, *range(1, after + 1)]]


def turned(x: Tensor, numbers: list[int]) -> Tensor:
    """One channel's rotation of x [s, r]."""
    r = x.shape[1]
    rows = []
    for vector, number in zip(x, numbers, strict=True):
        out = torch.zeros_like(vector)
        for j in range(r // 2):
            angle = number * float(torch.tensor(10000 ** (-2 * j / r)).half())
            cos, sin = math.cos(angle), math.sin(angle)
            first, second = vector[j], vector[j + r // 2]
            out[j], out[j + r // 2] = first * cos - second * sin, second * cos + first * sin
        rows.append(out)
    return torch.stack(rows)


def hidden_states(weights: dict[str, Tensor], heads: int, ids: list[int], channels: list[list[int]]) -> list[Tensor]:
    """Embeddings, each block's output but the last one's, and the final LayerNorm's: [s, hidden] each."""

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    border = channels[1].index(1)
    size = len(ids)
    sees = torch.tensor([[key <= query or key < border for key in range(size)] for query in range(size)])
    x = weights["transformer.word_embeddings.weight"][ids]
    found = [x]
    layer = 0
    while f"transformer.layers.{layer}.input_layernorm.weight" in weights:
        name = f"transformer.layers.{layer}"
        u = norm(f"{name}.input_layernorm", x)
        mixed = linear(f"{name}.attention.query_key_value", u)
        d = mixed.shape[1] // heads // 3
        outputs = []
        for head in range(heads):
            q, k, v = mixed[:, 3 * d * head : 3 * d * (head + 1)].split(d, dim=1)
            q, k = (
                torch.cat([turned(t[:, : d // 2], channels[0]), turned(t[:, d // 2 :], channels[1])], dim=1)
                for t in (q, k)
            )
            scores = torch.where(sees, q @ k.T / math.sqrt(d), -10000.0 * (layer + 1))
            outputs.append(scores.softmax(-1) @ v)
        y = ALPHA * u + linear(f"{name}.attention.dense", torch.cat(outputs, dim=1))
        z = norm(f"{name}.post_attention_layernorm", y)
        m = linear(f"{name}.mlp.dense_h_to_4h", z)
        m = 0.5 * m * (1 + torch.tanh(0.79788456 * m * (1 + 0.044715 * m * m)))
        x = ALPHA * z + linear(f"{name}.mlp.dense_4h_to_h", m)
        found.append(x)
        layer += 1
    found[-1] = norm("transformer.final_layernorm", x)
    return found
