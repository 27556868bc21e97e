"""Pairs as batches: a question's answers behind one copy of its prompt, or, where a model can't do that, each apart."""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.models import forward, shared_prompt
from stages.preference.pairs import EncodedPair, questions


class Together(NamedTuple):
    """Collates b pairs into a row for each question: its prompt, then its answers."""

    pad: int

    def __call__(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        """`shared_prompt.Packed`; places: [b, 2], which of its N answers are each pair's chosen and rejected."""
        rows, places = questions(pairs)
        return shared_prompt.pack(rows, self.pad)._asdict() | {"places": torch.tensor(places)}


class Apart(NamedTuple):
    """Collates b pairs into a row for each answer, padded on the right: the shorter half apart from the longer."""

    pad: int

    def __call__(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        """halves: [B, T] each; lengths: of each half, [B], tokens of their rows; places: [b, 2], the pairs' rows."""
        asked, places = questions(pairs)
        prompts = [question.prompt for question in asked for _ in question.answers]
        answers = [answer for question in asked for answer in question.answers]
        order = sorted(range(len(answers)), key=forward.lengths(prompts, answers).__getitem__)
        middle = (len(order) + 1) // 2
        plan = [order[:middle], order[middle:] or order]  # never one pass alone: processes make as many as each other
        halves = [batch for _, batch in forward.batches(prompts, answers, plan, self.pad, "cpu")]
        return {
            "halves": [half.ids for half in halves],
            "lengths": [half.lengths for half in halves],
            "places": torch.tensor(order).argsort()[torch.tensor(places)],
        }


def collator(model: Any, example: EncodedPair, pad: int) -> Together | Apart:
    """How this model's pairs are collated: together, unless that gives an example's answers other states."""
    reason = shared_prompt.why_not(model, (example.prompt, (example.chosen, example.rejected)), pad)
    if reason:
        print(f"rm: {reason}, so a prompt is computed once for each of its answers", file=sys.stderr)
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
        found = [
            _states(model, head, input_ids=ids, use_cache=False)[torch.arange(len(ids), device=ids.device), lengths - 1]
            for ids, lengths in zip(batch["halves"], batch["lengths"], strict=True)
        ]
        states = torch.cat(found)
    else:
        inputs = shared_prompt.inputs(unwrapped, batch["ids"], batch["positions"], batch["parts"])
        states = _states(model, head, **inputs)[batch["ends"][:, 0], batch["ends"][:, 1]]
    pairs: Tensor = head(states).squeeze(-1)[batch["places"]]
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
