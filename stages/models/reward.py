"""The reward model's scalar head: disk ↔ module, and token sequences → scores."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

HEAD = "head.safetensors"


def in_float32(model: Any) -> Any:
    """A sequence classifier whose `score` head computes in float32, under autocast too, as it does in PPO later."""
    import torch

    class Head(torch.nn.Linear):
        def forward(self, states: torch.Tensor) -> torch.Tensor:
            with torch.autocast(states.device.type, enabled=False):
                return super().forward(states.float())

    head = Head(model.score.in_features, 1, bias=False, device="meta")
    head.weight = torch.nn.Parameter(model.score.weight.float(), requires_grad=False)
    model.score = head
    return model


def save_head(model: Any, to: Path) -> None:
    """Write the `score` head of a trained sequence classifier, `weight` [1, hidden], in float32."""
    from safetensors.torch import save_file

    weight = trained_head(model).weight.detach().float().cpu().contiguous()
    save_file({"weight": weight}, to / HEAD, metadata={"format": "pt"})


def trained_head(model: Any) -> Any:
    """The `score` head that a `PeftModel` of a sequence classifier trains."""
    head = model.base_model.model.score
    return head.modules_to_save[head.active_adapters[0]]


def load_head(folder: Path, device: Any) -> Any:
    """The head as a frozen float32 `Linear(hidden, 1)` without bias."""
    import torch
    from safetensors.torch import load_file

    weight = load_file(folder / HEAD)["weight"]
    head = torch.nn.Linear(weight.shape[1], 1, bias=False)
    head.weight = torch.nn.Parameter(weight, requires_grad=False)
    return head.to(device)


def score(
    model: Any,
    head: Any,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    pad: int,
    tokens_per_batch: int,
    plan: Sequence[list[int]] | None = None,
) -> list[float]:
    """The reward of each response [len(prompts)], read at its last token, under the active adapters.

    Args:
        model: a causal language model or a sequence classifier, with or without adapters; its trunk is run.
        head: Linear(hidden, 1) in float32.
        tokens_per_batch: of a forward pass, padding included.
        plan: the rows of each forward pass, for one of several processes: the others' rows score 0.
    """
    import torch

    from stages.models import forward

    if plan is None:
        plan = forward.plan(forward.lengths(prompts, responses), tokens_per_batch)
    scores = [0.0] * len(prompts)
    with torch.no_grad():
        for rows, batch in forward.batches(prompts, responses, plan, pad, head.weight.device):
            states = forward.hidden_states(model, batch)
            at_end = states[torch.arange(len(states), device=states.device), batch.lengths - 1]
            for row, value in zip(rows, head(at_end.float()).squeeze(-1).tolist(), strict=False):
                scores[row] = value
    return scores


ROW = 512
"""Tokens of a prompt and those of its responses that share a row: attention's time grows with their square."""


def score_by_prompt(
    model: Any, head: Any, prompts: Sequence[list[int]], responses: Sequence[list[int]], pad: int, tokens_per_batch: int
) -> list[float]:
    """As `score`, but a prompt is computed once for all of its responses, and each of these once, where the model can."""
    import torch

    from stages.models import forward, shared_prompt

    groups: dict[tuple[int, ...], dict[tuple[int, ...], list[int]]] = {}
    for at, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        groups.setdefault(tuple(prompt), {}).setdefault(tuple(response), []).append(at)
    example = max(groups, key=lambda prompt: len(groups[prompt]))
    if len(groups[example]) == 1 or shared_prompt.why_not(model, (example, list(groups[example])[:2]), pad):
        return score(model, head, prompts, responses, pad, tokens_per_batch)

    rows: list[tuple[tuple[int, ...], list[tuple[int, ...]]]] = []
    for shared, different in groups.items():
        rows.append((shared, []))
        for answer in different:
            if rows[-1][1] and shared_prompt.length(rows[-1]) + len(answer) > min(ROW, tokens_per_batch):
                rows.append((shared, []))
            rows[-1][1].append(answer)
    scores = [0.0] * len(prompts)
    with torch.no_grad():
        for batch in forward.plan([shared_prompt.length(row) for row in rows], tokens_per_batch):
            states = shared_prompt.end_states(model, [rows[number] for number in batch], pad)
            asked = [groups[rows[number][0]][answer] for number in batch for answer in rows[number][1]]
            for places, value in zip(asked, head(states.float()).squeeze(-1).tolist(), strict=True):
                for at in places:
                    scores[at] = value
    return scores
