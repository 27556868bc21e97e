"""Token ids → two-channel positions and attention masks: where the context ends and who sees whom.

A sequence is `context… [gMASK] <sop> answer…`. The context (everything before the first <sop>) sees itself in both
directions, the rest is causal. Padding, on whichever side, changes nothing for the real tokens.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def prompt_positions(input_ids: Tensor, real: Tensor, bos: int, gmask: int, mask: int) -> Tensor:
    """Positions of whole sequences, counted from each row's first real token.

    Channel 0 counts 0, 1, … through the context and then stays at the place of [gMASK] (of [MASK] where there is no
    [gMASK]) from <sop> on. Channel 1 is 0 in the context and counts 1, 2, … from <sop> on. Padding gets 0 in both.

    Args:
        input_ids: [b, s].
        real: bool [b, s], False on padding.
        bos, gmask, mask: ids of <sop>, [gMASK] and [MASK].

    Returns:
        int64 [b, 2, s].

    Raises:
        ValueError: a row has no <sop>, or neither [gMASK] nor [MASK] before it.
    """
    rank = real.cumsum(-1) - 1
    is_bos = real & (input_ids == bos)
    in_context = real & (is_bos.cumsum(-1) == 0)
    has_gmask, has_mask = in_context & (input_ids == gmask), in_context & (input_ids == mask)
    marker = torch.where(has_gmask.any(-1, keepdim=True), has_gmask, has_mask)
    if not torch.compiler.is_compiling():  # a check on values would break the graph
        _check_rows(is_bos, f"<sop> ({bos})")
        _check_rows(marker, f"[gMASK] ({gmask}) or [MASK] ({mask}) before <sop>")

    context_length = in_context.sum(-1, keepdim=True)
    place = rank.gather(-1, marker.int().argmax(-1, keepdim=True))  # argmax: the first one
    position = torch.where(in_context, rank, place) * real
    block_position = torch.where(in_context, 0, rank - context_length + 1) * real
    return torch.stack((position, block_position), dim=1)


def next_positions(last: Tensor, real: Tensor) -> Tensor:
    """Positions of tokens that continue an answer.

    Args:
        last: [b, 2], the positions of each row's last real token so far, which is <sop> or later.
        real: bool [b, q], False on padding.

    Returns:
        int64 [b, 2, q]: channel 0 stays, channel 1 counts on; padding gets 0.
    """
    block_position = last[:, 1:] + real.cumsum(-1)
    return torch.stack((last[:, :1].expand_as(block_position), block_position), dim=1) * real[:, None]


def hold_position(position_ids: Tensor) -> Tensor:
    """Give every token after <sop> the position (channel 0) of <sop>: [b, 2, s] → the same."""
    position, block_position = position_ids.unbind(1)
    at_bos = position.gather(-1, (block_position == 1).int().argmax(-1, keepdim=True))
    return torch.stack((torch.where(block_position > 1, at_bos, position), block_position), dim=1)


class Ending(NamedTuple):
    """What a cache has to remember so that an answer can go on: how many tokens it holds, and where each row ended."""

    length: int
    positions: Tensor
    """[b, 2], of each row's last real token."""


def ending(position_ids: Tensor, length: int, before: "Ending | None") -> Ending:
    """The ending after tokens at `position_ids` [b, 2, q]; a row of padding only keeps what it had `before`."""
    last = position_ids[:, 1].argmax(-1)
    found = position_ids.gather(-1, last[:, None, None].expand(-1, 2, 1))[..., 0]
    if before is not None and before.positions.shape == found.shape:
        found = torch.where(found[:, 1:] > 0, found, before.positions)
    return Ending(length, found)


def real_tokens(attention_mask: Tensor | None, batch: int, total: int, device: torch.device) -> Tensor:
    """The attention mask [b, total] as bool; all True where none is given.

    Raises:
        ValueError: the mask covers fewer than `total` tokens, the cached ones included.
    """
    if attention_mask is None:
        return torch.ones(batch, total, dtype=torch.bool, device=device)
    if attention_mask.shape[-1] < total:
        raise ValueError(
            f"attention_mask has {attention_mask.shape[-1]} columns for {total} tokens, the cached ones included"
        )
    return attention_mask[:, :total].to(device=device, dtype=torch.bool)


def visible(position_ids: Tensor, real: Tensor, past_length: int, key_length: int) -> Tensor:
    """Who sees whom: True where the query (row) may look at the key (column).

    Args:
        position_ids: [b, 2, q], of the queries.
        real: bool [b, past_length + q], False on padding.
        past_length: how many keys a cache holds already. The context lies there whole, if it is not 0.
        key_length: past_length + q, or more where a static cache has room left over.

    Returns:
        bool [b, 1, q, key_length]. A row of padding sees nothing.

    Raises:
        ValueError: the queries end before <sop>, or bring context after cached tokens (a context can't be read in
            pieces: its early tokens look at its late ones).
    """
    total = real.shape[-1]
    real_queries = real[:, past_length:]
    in_context = real_queries & (position_ids[:, 1] == 0)
    if not torch.compiler.is_compiling():  # a check on values would break the graph
        broken = in_context.any(-1)
        if past_length == 0:
            broken = broken & ~(position_ids[:, 1] == 1).any(-1)
        if broken.any():
            raise ValueError("a context must go through the model in one piece, up to <sop>; do not prefill in chunks")

    columns = torch.arange(key_length, device=real.device)
    rows = torch.arange(past_length, total, device=real.device)
    sees = columns <= rows[:, None]  # [q, k]
    room = (0, key_length - total)
    if past_length == 0:
        sees = sees | F.pad(in_context, room)[:, None, None, :]
    return sees & F.pad(real, room)[:, None, None, :] & real_queries[:, None, :, None]


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """The mask to add to attention scores: 0 where visible, else the lowest finite number.

    Finite, so that a row of padding, which sees nothing, comes out as the plain mean over all keys and not as NaN.
    """
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, torch.finfo(dtype).min)


def _check_rows(found: Tensor, what: str) -> None:
    missing = ~found.any(-1)
    if missing.any():
        row = int(missing.int().argmax())
        raise ValueError(f"row {row} of input_ids has no {what}: a ChatGLM prompt ends with [gMASK] <sop>")
