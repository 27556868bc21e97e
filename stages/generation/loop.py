"""The decoding loop: a batch of prompts through a model, token by token.

Storage has fixed places: keys and values, the mask and the tokens are written into tensors that are allocated once per
batch. Every few tokens the loop asks the device which rows have ended, hands these out and goes on without them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.generation import cache, sampling
from stages.generation.decoding import Decoding
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
) -> Iterator[Ended]:
    """Answer each row; yields rows as they end.

    Args:
        model: a causal language model of transformers, with or without adapters.
        ids, mask: [B, P], padded on the left.
        uniforms: float64 [B, most new tokens], one draw each.
    """
    language_model = forward.causal_lm(model)
    batch, width = ids.shape
    limit = uniforms.shape[1]
    rows = torch.arange(batch)
    kept = cache.preallocated(language_model.config.get_text_config().num_hidden_layers, width + limit)
    real = torch.cat([mask, mask.new_ones(batch, limit)], dim=1)
    hidden_columns = _additive(real, language_model)
    padded = not bool(mask.all())
    positions = _first_positions(language_model, ids, mask)
    ends = torch.tensor(list(eos), device=ids.device)
    tokens = ids.new_zeros(batch, limit)
    found_log_probs = torch.zeros(batch, limit, device=ids.device)
    ended = torch.zeros(batch, dtype=torch.bool, device=ids.device)
    seen = None
    step_ids, step_positions = ids, positions
    for step in range(limit):
        columns = width + step
        attention_mask: Tensor | None = real[:, :columns]
        if step and hidden_columns is not None:
            # made once: left to itself, transformers builds it anew for each token, and asks the device about it
            attention_mask = hidden_columns[..., :columns] if padded else None
        outputs = language_model(
            input_ids=step_ids,
            attention_mask=attention_mask,
            position_ids=step_positions,
            past_key_values=kept,
            use_cache=True,
            logits_to_keep=1,
        )
        logits = outputs.logits[:, -1]
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
                kept = cache.select(kept, going)
                real, tokens, found_log_probs, ended, uniforms, chosen, step_positions = (
                    x[going] for x in (real, tokens, found_log_probs, ended, uniforms, chosen, step_positions)
                )
                seen = None if seen is None else seen[going]
                hidden_columns = None if hidden_columns is None else hidden_columns[going]
        step_ids, step_positions = chosen[:, None], _next_positions(language_model, step_positions)


def cut(tokens: list[int], eos: Sequence[int]) -> list[int]:
    """The tokens up to the first EOS, that one included."""
    end = next((n for n, token in enumerate(tokens, start=1) if token in eos), None)
    return tokens[:end]


def _first_positions(language_model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    if getattr(language_model, "derives_position_ids", False):  # ChatGLM: [B, 2, P]
        positions: Tensor = language_model._prepare_position_ids_for_generation(ids, {"attention_mask": mask})
        return positions
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _next_positions(language_model: Any, positions: Tensor) -> Tensor:
    following = positions[..., -1:] + 1
    if getattr(language_model, "derives_position_ids", False):
        following[:, 0] -= 1  # ChatGLM's first channel stays where the answer began
    return following


def _additive(real: Tensor, language_model: Any) -> Tensor | None:
    """The mask [B, 1, 1, columns] that is added to a new token's scores; None where a layer needs one of its own."""
    config = language_model.config.get_text_config()
    if getattr(config, "sliding_window", None) or config._attn_implementation not in ("eager", "sdpa"):
        return None
    lowest = torch.finfo(language_model.dtype).min
    return (1 - real[:, None, None].to(language_model.dtype)) * lowest
