"""Rows of text through the model: prompts and responses → padded batches of like length → hidden states.

The policy, its value head, the reference and the reward model all read the same frozen base this way; they differ in
which adapters are active.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Batch(NamedTuple):
    """Left-padded prompts, each followed at column P by its right-padded response of at most R tokens."""

    ids: Tensor
    """[B, P + R]."""
    mask: Tensor
    """[B, P + R], 1 on a prompt's and a response's tokens."""
    prompt_length: int
    """P."""

    @property
    def response(self) -> Tensor:
        """[B, R]."""
        return self.ids[:, self.prompt_length :]

    @property
    def response_mask(self) -> Tensor:
        """[B, R]."""
        return self.mask[:, self.prompt_length :]


def to_batch(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad: int, device: Any) -> Batch:
    """Pad the rows to the longest prompt and the longest response among them."""
    before, after = max(map(len, prompts)), max(1, *map(len, responses))
    ids, mask = [], []
    for prompt, response in zip(prompts, responses, strict=True):
        left, right = before - len(prompt), after - len(response)
        ids.append([pad] * left + [*prompt, *response] + [pad] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(response)) + [0] * right)
    return Batch(torch.tensor(ids, device=device), torch.tensor(mask, device=device), before)


def batches(
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    size: int,
    pad: int,
    device: Any,
    rows: Iterable[int] | None = None,
) -> Iterator[tuple[list[int], Batch]]:
    """Batches of at most `size` rows of like length, long ones first; each with the indices of its rows.

    Args:
        rows: the indices to go through; all of them by default.
    """

    def longest_first(row: int) -> tuple[int, int]:
        return -len(prompts[row]) - len(responses[row]), row

    ordered = sorted(range(len(prompts)) if rows is None else rows, key=longest_first)
    for start in range(0, len(ordered), size):
        chosen = ordered[start : start + size]
        yield chosen, to_batch([prompts[i] for i in chosen], [responses[i] for i in chosen], pad, device)


def hidden_states(model: Any, batch: Batch) -> Tensor:
    """Last hidden states [B, P + R, H] of the trunk under the active adapters."""
    language_model = causal_lm(model)
    states: Tensor = language_model.get_decoder()(**inputs(language_model, batch)).last_hidden_state
    return states


def causal_lm(model: Any) -> Any:
    """The language model below its adapters, which stay active."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def inputs(language_model: Any, batch: Batch) -> dict[str, Any]:
    """The arguments of a forward pass; positions count the tokens and not the padding before them."""
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "use_cache": False}
    if not getattr(language_model, "derives_position_ids", False):
        inputs["position_ids"] = (batch.mask.cumsum(-1) - 1).clamp(min=0)
    return inputs
