"""A batch's forward passes while it is decoded: the prompts, then a token of each row at a time."""

from typing import Any

import torch
from torch import Tensor

from stages.generation import cache

PROMPT_TOKENS = {"cpu": 1024, "cuda": 2**15}
"""Positions of prompts that go through the model at a time: on a CPU as many as its caches hold."""


class Steps:
    """Passes whose keys, values and mask grow by a column with each token. Their storage is allocated once.

    Args:
        language_model: of transformers, with or without adapters.
        ids, mask: [B, P], padded on the left.
        limit: the most new tokens of a row.
    """

    def __init__(self, language_model: Any, ids: Tensor, mask: Tensor, limit: int):
        self.language_model, self.ids, self.mask = language_model, ids, mask
        batch, self.columns = ids.shape
        layers = language_model.config.get_text_config().num_hidden_layers
        self.cache = cache.preallocated(layers, batch, self.columns + limit)
        self.real = torch.cat([mask, mask.new_ones(batch, limit)], dim=1)
        self.hidden_columns = additive(self.real, language_model)
        self.padded = not bool(mask.all())
        self.positions = first_positions(language_model, ids, mask)

    def first(self) -> Tensor:
        """Logits [B, V] of each row's first new token."""
        logits = read_prompts(self.language_model, self.ids, self.mask, self.positions, self.cache.layers)
        for layer in self.cache.layers:
            layer.length = self.columns
        return logits

    def next(self, chosen: Tensor) -> Tensor:
        """Logits [B, V] of the token after the chosen ones [B]."""
        self.columns += 1
        self.positions = next_positions(self.language_model, self.positions)
        mask: Tensor | None = self.real[:, : self.columns]
        if self.hidden_columns is not None:
            # made once: left to itself, transformers builds it anew for each token, and asks the device about it
            mask = self.hidden_columns[..., : self.columns] if self.padded else None
        return last_logits(self.language_model, chosen[:, None], mask, self.positions, self.cache)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone."""
        self.cache = cache.select(self.cache, rows)
        self.real, self.positions = self.real[rows], self.positions[rows]
        self.hidden_columns = None if self.hidden_columns is None else self.hidden_columns[rows]


def read_prompts(language_model: Any, ids: Tensor, mask: Tensor, positions: Tensor, layers: list[Any]) -> Tensor:
    """Logits [B, V] of each row's first new token; keys and values go into the layers.

    A few rows at a time, without the columns that are padding for all of them: so rows of like length side by side, as
    `generate` orders them, cost no more than their own tokens.
    """
    width = ids.shape[1]
    most = PROMPT_TOKENS.get(ids.device.type, PROMPT_TOKENS["cuda"])
    found, lengths = [], mask.sum(1).tolist()
    for rows in passes(lengths, most):
        start = width - max(lengths[rows])
        kept = cache.for_prompts(layers, rows, start)
        found.append(
            last_logits(language_model, ids[rows, start:], mask[rows, start:], positions[rows, ..., start:], kept)
        )
    return torch.cat(found)


def passes(lengths: list[int], most: int) -> list[slice]:
    """Neighbouring rows, together no more than `most` positions with their padding, or one row alone."""
    found, start, longest = [], 0, 0
    for row, length in enumerate(lengths):
        if row > start and max(longest, length) * (row - start + 1) > most:
            found.append(slice(start, row))
            start, longest = row, 0
        longest = max(longest, length)
    return [*found, slice(start, len(lengths))]


def last_logits(language_model: Any, ids: Tensor, mask: Tensor | None, positions: Tensor, kept: Any) -> Tensor:
    """Logits [B, V] of the last position of ids [B, s], after what the cache keeps."""
    logits: Tensor = language_model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=kept,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    return logits


def first_positions(language_model: Any, ids: Tensor, mask: Tensor) -> Tensor:
    if getattr(language_model, "derives_position_ids", False):  # ChatGLM: [B, 2, P]
        positions: Tensor = language_model._prepare_position_ids_for_generation(ids, {"attention_mask": mask})
        return positions
    return (mask.cumsum(-1) - 1).clamp(min=0)


def next_positions(language_model: Any, positions: Tensor) -> Tensor:
    following = positions[..., -1:] + 1
    if getattr(language_model, "derives_position_ids", False):
        following[:, 0] -= 1  # ChatGLM's first channel stays where the answer began
    return following


def additive(real: Tensor, language_model: Any) -> Tensor | None:
    """The mask [B, 1, 1, columns] that is added to a new token's scores; None where a layer needs one of its own."""
    config = language_model.config.get_text_config()
    if getattr(config, "sliding_window", None) or config._attn_implementation not in ("eager", "sdpa"):
        return None
    lowest = torch.finfo(language_model.dtype).min
    return (1 - real[:, None, None].to(language_model.dtype)) * lowest
