"""Pairs as batches: both answers behind one copy of their prompt, or, where a model can't do that, each in its row."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.models import forward, shared_prompt
from stages.preference.pairs import EncodedPair


class Together(NamedTuple):
    """Collates b pairs into b rows: prompt, chosen answer, rejected answer."""

    pad: int

    def __call__(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        """`shared_prompt.Packed` of b rows and 2b answers."""
        rows = [(pair.prompt, (pair.chosen, pair.rejected)) for pair in pairs]
        return shared_prompt.pack(rows, self.pad)._asdict()


class Apart(NamedTuple):
    """Collates b pairs into 2b rows, padded on the right: the shorter half apart from the longer."""

    pad: int

    def __call__(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        """halves: two of [b, T]; lengths: [2b], tokens of their rows; place: [2b], the row of each answer."""
        prompts = [pair.prompt for pair in pairs for _ in range(2)]
        answers = [answer for pair in pairs for answer in (pair.chosen, pair.rejected)]
        order = sorted(range(len(answers)), key=forward.lengths(prompts, answers).__getitem__)
        plan = [order[: len(pairs)], order[len(pairs) :]]
        halves = [batch for _, batch in forward.batches(prompts, answers, plan, self.pad, "cpu")]
        lengths = torch.cat([half.lengths for half in halves])
        return {"halves": [half.ids for half in halves], "lengths": lengths, "place": torch.tensor(order).argsort()}


def collator(model: Any, example: EncodedPair, pad: int) -> Together | Apart:
    """How this model's pairs are collated: together, unless that gives an example's answers other states."""
    reason = shared_prompt.why_not(model, (example.prompt, (example.chosen, example.rejected)), pad)
    if reason:
        print(f"rm: {reason}, so the prompt of a pair is computed once for each answer", file=sys.stderr)
        return Apart(pad)
    return Together(pad)


def scores(model: Any, batch: dict[str, Any]) -> Tensor:
    """Scores [b, 2] of the chosen and the rejected answers of a collated batch, in float32.

    Args:
        model: a sequence classifier with its adapter, perhaps wrapped for several processes.
    """
    unwrapped = model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model
    head = unwrapped.base_model.model.score
    if "halves" in batch:
        # No mask: no token attends to the padding after it.
        passes = zip(batch["halves"], batch["lengths"].chunk(2), strict=True)
        found = [
            _states(model, head, input_ids=ids, use_cache=False)[torch.arange(len(ids), device=ids.device), lengths - 1]
            for ids, lengths in passes
        ]
        states = torch.cat(found)[batch["place"]]
    else:
        inputs = shared_prompt.inputs(unwrapped, batch["ids"], batch["positions"], batch["parts"])
        states = _states(model, head, **inputs)[batch["ends"][:, 0], batch["ends"][:, 1]]
    pairs: Tensor = head(states).view(-1, 2)
    return pairs


def _states(model: Any, head: Any, **inputs: Any) -> Tensor:
    """The last hidden states [B, T, H], from a pass of the model's own, so that whatever wraps it takes part."""
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        model(**inputs)
    finally:
        hook.remove()
    return seen[0]
