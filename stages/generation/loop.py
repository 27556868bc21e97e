"""The decoding loop: a batch of prompts through a model, token by token.

Every few tokens the loop asks the device which rows have ended, hands these out and goes on without them. The passes
themselves are those of steps.py or, replayed, of graphs.py.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.generation import graphs, sampling
from stages.generation.decoding import Decoding
from stages.generation.steps import Steps
from stages.models import forward, sharding

CHECK = 8
"""Tokens between two looks at which rows have ended."""
ATTENTION_ONLY = {"full_attention", "sliding_attention"}


class Ended(NamedTuple):
    """A row that is done."""

    row: int
    tokens: list[int]
    """Up to the first EOS, that one included."""
    log_probs: list[float]
    """Of the tokens, as the sampler saw them; empty where they were not asked for."""


def why_not(model: Any) -> str | None:
    """What about a model the loop can't do, or None."""
    if not isinstance(model, torch.nn.Module):
        return "it is wrapped"
    language_model = forward.causal_lm(model)
    config = language_model.config.get_text_config()
    if sharding.is_sharded(model):
        return "its layers are divided among processes"
    if not type(language_model).__module__.startswith(("transformers.", "stages.")):
        return "its code is not part of transformers"
    if config.is_encoder_decoder or getattr(language_model, "_is_stateful", False):
        return "it keeps a state of its own"
    if not set(getattr(config, "layer_types", None) or []) <= ATTENTION_ONLY:
        return "not all of its layers are attention"
    return None


@torch.no_grad()  # while it runs, not while its caller does
def decode(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    uniforms: Tensor,
    decoding: Decoding,
    eos: Sequence[int],
    with_log_probs: bool = False,
    with_graphs: bool = False,
) -> Iterator[Ended]:
    """Answer each row; yields rows as they end.

    Args:
        model: a causal language model of transformers, with or without adapters.
        ids, mask: [B, P], padded on the left.
        uniforms: float64 [B, most new tokens], one draw each.
        with_graphs: record the passes, where that can be done.

    Raises:
        UserError: a logit is not a number.
    """
    batch, limit = len(ids), uniforms.shape[1]
    steps: Any
    if with_graphs and graphs.usable(model, ids):
        steps = graphs.RecordedSteps(model, ids, mask, limit)
    else:
        steps = Steps(forward.causal_lm(model), ids, mask, limit)
    rows = torch.arange(batch)
    ends = torch.tensor(list(eos), device=ids.device)
    tokens = ids.new_zeros(batch, limit)
    found_log_probs = torch.zeros(batch, limit, device=ids.device)
    ended = torch.zeros(batch, dtype=torch.bool, device=ids.device)
    broken = torch.zeros((), dtype=torch.bool, device=ids.device)
    seen = None
    logits = steps.first()
    for step in range(limit):
        broken |= logits.isnan().any()
        if seen is None and decoding.repetition_penalty != 1:
            seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
        chosen = sampling.next_tokens(logits, uniforms[:, step], seen, decoding)
        tokens[:, step] = chosen
        if seen is not None:
            seen.scatter_(1, chosen[:, None], True)
        if with_log_probs:
            found_log_probs[:, step] = sampling.log_probs(logits, chosen, decoding.temperature)
        ended |= torch.isin(chosen, ends)
        last = step + 1 == limit
        if last or (step + 1) % CHECK == 0:
            sampling.refuse_nan(broken)
            done = ended.cpu() | last
            for row in done.nonzero().squeeze(1).tolist():
                answer = cut(tokens[row, : step + 1].tolist(), eos)
                its_log_probs = found_log_probs[row, : len(answer)].tolist() if with_log_probs else []
                yield Ended(int(rows[row]), answer, its_log_probs)
            if done.all():
                return
            if done.any():
                going = (~done).nonzero().squeeze(1)
                rows = rows[going]
                going = going.to(ids.device)
                steps.keep(going)
                tokens, found_log_probs, ended, uniforms, chosen = (
                    x[going] for x in (tokens, found_log_probs, ended, uniforms, chosen)
                )
                seen = None if seen is None else seen[going]
        logits = steps.next(chosen)


def cut(tokens: list[int], eos: Sequence[int]) -> list[int]:
    """The tokens up to the first EOS, that one included."""
    end = next((n for n, token in enumerate(tokens, start=1) if token in eos), None)
    return tokens[:end]
