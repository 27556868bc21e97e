"""Prompts → answers, in large batches of like length.

Randomness is one uniform number per (sample, position), drawn before. In float32 an answer is therefore the same
whatever batch, order or process its prompt lands in; in half precision the logits themselves depend on the batch.
"""

import random
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from stages.generation.decoding import Decoding
from stages.models import sharding


class Answer(NamedTuple):
    ids: list[int]
    """The new tokens, the EOS included if there is one."""
    ended: bool
    """Whether the model ended it, and not the limit."""
    log_probs: list[float] = []
    """Of the tokens, as the sampler saw them; empty where they were not asked for."""


def eos_ids(model: Any, tokenizer: Any) -> list[int]:
    """The ids that end an answer: the tokenizer's EOS, and what the model's own generation config adds."""
    more = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *([] if more is None else [more] if isinstance(more, int) else more)})


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[str],
    decoding: Decoding,
    max_new_tokens: int,
    batch_size: int,
    eos: Sequence[int],
    pad: int,
    with_log_probs: bool = False,
    with_graphs: bool = False,
) -> Iterator[tuple[int, Answer]]:
    """Answer each prompt; yields (its index, its answer), long prompts first.

    Args:
        keys: one per prompt; what seeds its randomness.
        eos: the ids that end an answer.
        with_log_probs: keep the sampler's; left out where transformers' own `generate` has to be used.
        with_graphs: on a GPU, record the passes as CUDA graphs.
    """
    import torch

    from stages.generation import loop, transformers_generate

    device = next(model.parameters()).device
    reason = loop.why_not(model)
    if reason and isinstance(model, torch.nn.Module) and not sharding.is_sharded(model):
        print(f"{type(model).__name__}: {reason}, so transformers' own, slower generate is used", file=sys.stderr)
    by_length = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    for start in range(0, len(by_length), batch_size):
        batch = by_length[start : start + batch_size]
        ids, mask = left_pad([prompts[i] for i in batch], pad, device)
        drawn = [_uniforms(keys[i], max_new_tokens) for i in batch]
        uniforms = torch.tensor(drawn, dtype=torch.float64, device=device)
        if reason:
            rows = transformers_generate.generate(
                model, ids, mask, uniforms, decoding, eos, pad, synced=sharding.is_sharded(model)
            )
            for i, tokens in zip(batch, rows, strict=True):
                yield i, Answer(tokens, tokens[-1] in eos)
        else:
            ended = loop.decode(model, ids, mask, uniforms, decoding, eos, with_log_probs, with_graphs)
            for row, tokens, log_probs in ended:
                yield batch[row], Answer(tokens, tokens[-1] in eos, log_probs)


def left_pad(sequences: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Any, Any]:
    """Ids and mask, both [len(sequences), longest], padded on the left."""
    import torch

    longest = max(map(len, sequences))
    ids = torch.tensor([[pad] * (longest - len(s)) + list(s) for s in sequences], device=device)
    mask = torch.tensor([[0] * (longest - len(s)) + [1] * len(s) for s in sequences], device=device)
    return ids, mask


def _uniforms(key: str, count: int) -> list[float]:
    generator = random.Random(key)
    return [generator.random() for _ in range(count)]
