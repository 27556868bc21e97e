"""Pairs as batches: both answers behind one copy of their prompt, or, where a model can't do that, each in its own row.

Neither answer attends to the other, and the positions of both go on from the prompt's, so the scores are the same.
"""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.models import forward
from stages.preference.pairs import EncodedPair

PROMPT, CHOSEN, REJECTED, PADDING = range(4)
"""Which part of its row a token belongs to."""


class Together(NamedTuple):
    """Collates b pairs into b rows: prompt, chosen answer, rejected answer, padding."""

    pad: int

    def __call__(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        """ids, positions and parts: [b, T]; ends: [2b, 2], row and column of each answer's last token, chosen first."""
        longest = max(pair.tokens for pair in pairs)
        ids, positions, parts, chosen_ends, rejected_ends = [], [], [], [], []
        for row, (prompt, chosen, rejected) in enumerate(pairs):
            start, middle, end = len(prompt), len(prompt) + len(chosen), len(prompt) + len(chosen) + len(rejected)
            padding = longest - end
            ids.append([*prompt, *chosen, *rejected, *[self.pad] * padding])
            positions.append([*range(middle), *range(start, start + len(rejected)), *[0] * padding])
            parts.append([PROMPT] * start + [CHOSEN] * len(chosen) + [REJECTED] * len(rejected) + [PADDING] * padding)
            chosen_ends.append([row, middle - 1])
            rejected_ends.append([row, end - 1])
        found = {"ids": ids, "positions": positions, "parts": parts, "ends": chosen_ends + rejected_ends}
        return {name: torch.tensor(values) for name, values in found.items()}


class Apart(NamedTuple):
    """Collates b pairs into 2b rows, padded on the right: the shorter half apart from the longer."""

    pad: int

    def __call__(self, pairs: Sequence[EncodedPair]) -> dict[str, Any]:
        """halves: two of [b, T]; lengths: [2b], tokens of their rows; place: [2b], the row of each answer."""
        prompts = [pair.prompt for pair in pairs] * 2
        answers = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
        order = sorted(range(len(answers)), key=forward.lengths(prompts, answers).__getitem__)
        plan = [order[: len(pairs)], order[len(pairs) :]]
        halves = [batch for _, batch in forward.batches(prompts, answers, plan, self.pad, "cpu")]
        lengths = torch.cat([half.lengths for half in halves])
        return {"halves": [half.ids for half in halves], "lengths": lengths, "place": torch.tensor(order).argsort()}


def scores(model: Any, batch: dict[str, Any]) -> Tensor:
    """Scores [2b] of the answers of a collated batch, in float32: all chosen ones, then all rejected ones.

    Args:
        model: a sequence classifier with its adapter, perhaps wrapped for several processes.
    """
    return _head(model)(_states_at_ends(model, batch)).squeeze(-1)


def collator(model: Any, example: EncodedPair, pad: int) -> Together | Apart:
    """How this model's pairs are collated: together if that gives an example's answers the states they have apart."""
    if reason := _why_apart(model, example, pad):
        print(f"rm: {reason}, so the prompt of a pair is computed once for each answer", file=sys.stderr)
        return Apart(pad)
    return Together(pad)


def _why_apart(model: Any, example: EncodedPair, pad: int) -> str | None:
    config = model.config.get_text_config()
    if config._attn_implementation not in ("eager", "sdpa"):
        return f"{config._attn_implementation} takes no mask of its own"
    if getattr(config, "sliding_window", None):
        return "its attention has a window"
    training, device = model.training, model.device
    model.eval()
    try:
        apart, together = (_example_states(model, kind(pad)([example]), device) for kind in (Apart, Together))
    except (TypeError, ValueError):
        return f"{config.model_type} takes no mask or positions from outside"
    finally:
        model.train(training)
    # bfloat16 rounds states by 1/256; what sees the other answer differs by much more
    close = torch.allclose(together, apart, rtol=0.02, atol=0.02 * float(apart.abs().max()))
    return None if close else f"{config.model_type} reads more than its mask allows"


def _example_states(model: Any, batch: dict[str, Any], device: Any) -> Tensor:
    batch = {name: [x.to(device) for x in v] if isinstance(v, list) else v.to(device) for name, v in batch.items()}
    with torch.no_grad():
        return _states_at_ends(model, batch).float()


def _states_at_ends(model: Any, batch: dict[str, Any]) -> Tensor:
    """Last hidden states [2b, H] of each answer's last token."""
    if "halves" in batch:
        # No mask: no token attends to the padding after it.
        parts = zip(batch["halves"], batch["lengths"].chunk(2), strict=True)
        found = [
            _states(model, input_ids=ids)[torch.arange(len(ids), device=ids.device), lengths - 1]
            for ids, lengths in parts
        ]
        return torch.cat(found)[batch["place"]]
    mask = _mask(batch["parts"])
    if _unwrapped(model).config.get_text_config()._attn_implementation == "eager":  # which adds it to the scores
        dtype = _unwrapped(model).dtype
        mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(~mask, torch.finfo(dtype).min)
    states = _states(model, input_ids=batch["ids"], position_ids=batch["positions"], attention_mask=mask)
    return states[batch["ends"][:, 0], batch["ends"][:, 1]]


def _mask(parts: Tensor) -> Tensor:
    """Whether a token attends to another, [b, 1, T, T]: to what comes before it in its own part and in the prompt."""
    before = torch.ones(parts.shape[1], parts.shape[1], dtype=torch.bool, device=parts.device).tril()
    return (before & ((parts[:, None] == PROMPT) | (parts[:, None] == parts[:, :, None])))[:, None]


def _states(model: Any, **inputs: Any) -> Tensor:
    """The last hidden states [B, T, H], from a pass of the model's own, so that whatever wraps it takes part."""
    seen: list[Tensor] = []
    hook = _head(model).register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    try:
        model(**inputs, use_cache=False)
    finally:
        hook.remove()
    return seen[0]


def _unwrapped(model: Any) -> Any:
    return model.module if isinstance(model, torch.nn.parallel.DistributedDataParallel) else model


def _head(model: Any) -> Any:
    return _unwrapped(model).base_model.model.score
