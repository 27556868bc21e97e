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

    head = model.base_model.model.score
    trained = head.modules_to_save[head.active_adapters[0]]
    save_file({"weight": trained.weight.detach().float().cpu().contiguous()}, to / HEAD, metadata={"format": "pt"})


def load_head(folder: Path, device: Any) -> Any:
    """The head as a frozen float32 `Linear(hidden, 1)` without bias."""
    import torch
    from safetensors.torch import load_file

    weight = load_file(folder / HEAD)["weight"]
    head = torch.nn.Linear(weight.shape[1], 1, bias=False)
    head.weight = torch.nn.Parameter(weight, requires_grad=False)
    return head.to(device)


def score_with_classifier(model: Any, sequences: Sequence[list[int]], pad: int, batch_size: int) -> list[float]:
    """Scores [len(sequences)] of a sequence classifier, in the given order; batches are sorted by length."""
    import torch

    model.eval()
    device = next(model.parameters()).device
    scores = [0.0] * len(sequences)
    by_length = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    with torch.no_grad():
        for start in range(0, len(by_length), batch_size):
            batch = by_length[start : start + batch_size]
            longest = max(len(sequences[i]) for i in batch)
            ids = torch.tensor([sequences[i] + [pad] * (longest - len(sequences[i])) for i in batch], device=device)
            mask = torch.tensor(
                [[1] * len(sequences[i]) + [0] * (longest - len(sequences[i])) for i in batch], device=device
            )
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
            for i, value in zip(batch, logits.float().squeeze(-1).tolist(), strict=True):
                scores[i] = value
    return scores


def score(
    model: Any,
    head: Any,
    prompts: Sequence[list[int]],
    responses: Sequence[list[int]],
    pad: int,
    batch_size: int,
) -> list[float]:
    """The reward of each response [len(prompts)], read at its last token, under the active adapters."""
    import torch

    from stages.models import forward

    lengths = [len(p) + len(r) for p, r in zip(prompts, responses, strict=True)]
    scores = [0.0] * len(prompts)
    with torch.no_grad():
        for rows in forward.by_length(lengths, range(len(prompts)), batch_size):
            batch = forward.to_batch(
                [prompts[i] for i in rows], [responses[i] for i in rows], pad, head.weight.device
            )
            for i, value in zip(rows, scores_of(model, head, batch).tolist(), strict=True):
                scores[i] = value
    return scores


def scores_of(model: Any, head: Any, batch: Any) -> Any:
    """The reward model's scores [B] of a batch, read at each row's last token."""
    import torch

    from stages.models import forward

    states = forward.hidden_states(model, batch)
    last = batch.prompt_length - 1 + batch.response_mask.sum(1)
    at_end = states[torch.arange(len(states), device=states.device), last]
    return head(at_end.float()).squeeze(-1)
