"""Several answers in one row, behind one copy of their prompt, which is computed once for all of them.

No answer attends to another, and the positions of each go on from the prompt's: so each has the states that it would
have in a row of its own.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.models import forward

Row = tuple[Sequence[int], Sequence[Sequence[int]]]
"""A prompt and its answers, as token ids."""
PROMPT, PADDING = 0, -1
"""Which part of its row a token belongs to; the answers are parts 1, 2, …"""


class Packed(NamedTuple):
    ids: Tensor
    """[B, T], padded on the right."""
    positions: Tensor
    """[B, T]."""
    parts: Tensor
    """[B, T]."""
    ends: Tensor
    """[N, 2], row and column of each answer's last token, in the order of the rows and of the answers in each."""


def pack(rows: Sequence[Row], pad: int, device: Any = "cpu") -> Packed:
    longest = max(length(row) for row in rows)
    ids, positions, parts, ends = [], [], [], []
    for number, (prompt, answers) in enumerate(rows):
        row_ids, row_positions, row_parts = [*prompt], [*range(len(prompt))], [PROMPT] * len(prompt)
        for part, answer in enumerate(answers, start=1):
            row_ids += answer
            row_positions += range(len(prompt), len(prompt) + len(answer))
            row_parts += [part] * len(answer)
            ends.append([number, len(row_ids) - 1])
        padding = longest - len(row_ids)
        ids.append(row_ids + [pad] * padding)
        positions.append(row_positions + [0] * padding)
        parts.append(row_parts + [PADDING] * padding)
    return Packed(*(torch.tensor(values, device=device) for values in (ids, positions, parts, ends)))


def length(row: Row) -> int:
    """Tokens of the prompt and all answers."""
    return len(row[0]) + sum(map(len, row[1]))


def inputs(model: Any, ids: Tensor, positions: Tensor, parts: Tensor) -> dict[str, Any]:
    """What a forward pass over packed rows is given."""
    visible = mask(parts)
    if model.config.get_text_config()._attn_implementation == "eager":  # which adds its mask to the scores
        lowest = torch.finfo(model.dtype).min
        visible = torch.zeros(visible.shape, dtype=model.dtype, device=ids.device).masked_fill(~visible, lowest)
    return {"input_ids": ids, "position_ids": positions, "attention_mask": visible, "use_cache": False}


def mask(parts: Tensor) -> Tensor:
    """Whether a token attends to another, [B, 1, T, T]: to what comes before it in its own part and in the prompt."""
    before = torch.ones(parts.shape[1], parts.shape[1], dtype=torch.bool, device=parts.device).tril()
    return (before & ((parts[:, None] == PROMPT) | (parts[:, None] == parts[:, :, None])))[:, None]


def end_states(model: Any, rows: Sequence[Row], pad: int) -> Tensor:
    """The last hidden states [N, H] of the answers' last tokens, under the active adapters."""
    packed = pack(rows, pad, model.device)
    trunk = forward.causal_lm(model).get_decoder()
    states = trunk(**inputs(model, packed.ids, packed.positions, packed.parts)).last_hidden_state
    found: Tensor = states[packed.ends[:, 0], packed.ends[:, 1]]
    return found


def why_not(model: Any, example: Row, pad: int) -> str | None:
    """What about a model makes an answer's states depend on the others in its row, or None. Tried on an example."""
    config = model.config.get_text_config()
    if config._attn_implementation not in ("eager", "sdpa"):
        return f"{config._attn_implementation} takes no mask of its own"
    if getattr(config, "sliding_window", None):
        return "its attention has a window"
    prompt, answers = example
    alone = [[*prompt, *answer] for answer in answers]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            together = end_states(model, [example], pad).float()
            trunk = forward.causal_lm(model).get_decoder()
            apart = torch.stack(
                [
                    trunk(input_ids=torch.tensor([ids], device=model.device), use_cache=False).last_hidden_state[0, -1]
                    for ids in alone
                ]
            ).float()
    except (TypeError, ValueError):
        return f"{config.model_type} takes no mask or no positions from outside"
    finally:
        model.train(training)
    # bfloat16 rounds states by 1/256; what sees another answer differs by much more
    close = torch.allclose(together, apart, rtol=0.02, atol=0.02 * float(apart.abs().max()))
    return None if close else f"{config.model_type} reads more than its mask allows"
