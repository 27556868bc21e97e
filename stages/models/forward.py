"""Rows of text through the model: prompts and responses → batches of like length → hidden states.

The policy, its value head, the reference and the reward model all read the same frozen base this way; they differ in
which adapters are active.

Rows are aligned at the left and padded on the right. No token attends to the padding after it, so a pass needs no mask,
and positions count from 0.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.runtime import threads


class Batch(NamedTuple):
    """Prompts, each followed by its response, padded on the right."""

    ids: Tensor
    """[B, T]."""
    response: Tensor
    """bool [B, T], whether the token is one of the response's."""
    lengths: Tensor
    """[B], tokens of each row."""


def to_batch(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad: int, device: Any) -> Batch:
    """Pad the rows to the longest of them."""
    counts = lengths(prompts, responses)
    longest = max(counts)
    ids, mask = [], []
    for prompt, response, length in zip(prompts, responses, counts, strict=True):
        ids.append([*prompt, *response] + [pad] * (longest - length))
        mask.append([False] * len(prompt) + [True] * len(response) + [False] * (longest - length))
    return Batch(*(torch.tensor(x, device=device) for x in (ids, mask, counts)))


def plan(counts: Sequence[int], tokens: int, rows: Iterable[int] | None = None) -> list[list[int]]:
    """Rows of like length side by side, long ones first, at most `tokens` in a batch, its padding included.

    Args:
        counts: tokens of each row.
        tokens: a row that has more is a batch of its own.
        rows: the indices to go through; all of them by default.
    """
    ordered = sorted(range(len(counts)) if rows is None else rows, key=lambda row: (-counts[row], row))
    batches = []
    while ordered:
        size = max(1, tokens // counts[ordered[0]])
        batches.append(ordered[:size])
        ordered = ordered[size:]
    return batches


def batches(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], plan: Iterable[list[int]], pad: int, device: Any
) -> Iterator[tuple[list[int], Batch]]:
    """The rows of each batch of the plan, and the batch; without any rows, one to keep step with other processes."""
    for rows in plan:
        threads.make_room()
        chosen = rows or [0]
        yield rows, to_batch([prompts[i] for i in chosen], [responses[i] for i in chosen], pad, device)


def lengths(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]]) -> list[int]:
    """Tokens of each prompt with its response."""
    return [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]


def hidden_states(model: Any, batch: Batch) -> Tensor:
    """Last hidden states [B, T, H] of the trunk under the active adapters."""
    trunk = causal_lm(model).get_decoder()
    states: Tensor = trunk(input_ids=batch.ids, use_cache=False).last_hidden_state
    return states


def logits(head: Any, states: Tensor) -> Tensor:
    """Logits [..., V] of the states [..., H], in float32.

    In bfloat16 logits near 20 lie 1/8 apart, and a probability jumps by 12 %: so a plain head's products are added up
    in float32 and stay there. On a GPU that product has no gradient: ask for none, as `logprobs` does.
    """
    if type(head) is not torch.nn.Linear or head.weight.dtype == torch.float32:
        found: Tensor = head(states).float()
        return found
    bias = None if head.bias is None else head.bias.float()
    if states.is_cuda:
        found = torch.mm(states.flatten(0, -2), head.weight.T, out_dtype=torch.float32)
        return (found if bias is None else found + bias).unflatten(0, states.shape[:-1])
    return torch.nn.functional.linear(states.float(), head.weight.float(), bias)


@contextmanager
def head_reads(model: Any, positions: Tensor) -> Iterator[None]:
    """Within the block the LM head reads only these positions [B, T], so that a forward pass gives logits [N, V].

    Done by a hook, so that the pass stays the model's own: wrapped for several processes, with what the model does to
    its logits after the head.
    """
    unwrapped = model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model
    head = causal_lm(unwrapped).get_output_embeddings()
    hook = head.register_forward_pre_hook(lambda _, arguments: (arguments[0][positions],))
    try:
        yield
    finally:
        hook.remove()


def causal_lm(model: Any) -> Any:
    """The language model below its adapters, which stay active."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
