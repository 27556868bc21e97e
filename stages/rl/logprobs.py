"""Log-probabilities, entropies and values of response tokens: the policy's, or the reference's.

Both read one frozen base and differ in the active adapters. Only the positions that predict a response token go
through the LM head, and these in chunks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stages.models import forward
from stages.rl import maths
from stages.rl.rollouts import Rollouts
from stages.runtime.errors import UserError


class TokenLogProbs(NamedTuple):
    """Of each response token; [B, R] each, 0 where masked."""

    log_probs: Tensor
    entropy: Tensor
    values: Tensor
    """0 without a value head."""


def rollout_log_probs(
    model: Any,
    rollouts: Rollouts,
    plan: Sequence[list[int]],
    temperature: float,
    chunk: int,
    pad: int,
    value_head: nn.Linear | None = None,
) -> TokenLogProbs:
    """`response_log_probs` of all rollouts, batch by batch of the plan, without gradients."""
    found = TokenLogProbs(*(torch.zeros_like(rollouts.mask) for _ in TokenLogProbs._fields))
    with torch.no_grad():
        for rows, batch in forward.batches(rollouts.prompts, rollouts.responses, plan, pad, rollouts.ended.device):
            outputs = response_log_probs(model, batch, temperature, chunk, value_head)
            for whole, part in zip(found, outputs, strict=True):
                whole[rows, : part.shape[1]] = part[: len(rows)]
    return found


def response_log_probs(
    model: Any, batch: forward.Batch, temperature: float, chunk: int, value_head: nn.Linear | None = None
) -> TokenLogProbs:
    """Log-probabilities, entropies and, with a head, values of the response tokens, from one forward pass.

    Args:
        temperature: divides the logits, as in sampling.
        chunk: rows that go through the LM head at a time; no chunk's logits are kept for the backward pass.
    """
    head = forward.causal_lm(model).get_output_embeddings()
    before = batch.response.roll(-1, dims=1)  # the positions that predict a response's tokens
    states = forward.hidden_states(model, batch)[before]
    tokens = batch.ids[batch.response]
    counts = batch.response.sum(1)
    present = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]

    def through_head(part: Tensor, part_tokens: Tensor) -> tuple[Tensor, Tensor]:
        return maths.log_probs_and_entropy(forward.logits(head, part), part_tokens, temperature)

    log_probs, entropies = [], []
    for part, part_tokens in zip(states.split(chunk), tokens.split(chunk), strict=True):
        if torch.is_grad_enabled() and type(head) is nn.Linear and not head.weight.requires_grad:
            log_prob, entropy = _FrozenHead.apply(part, head, part_tokens, temperature)
        elif torch.is_grad_enabled():  # a head that learns, such as one with LoRA: its logits are computed twice
            log_prob, entropy = checkpoint(through_head, part, part_tokens, use_reentrant=False)
        else:
            log_prob, entropy = through_head(part, part_tokens)
        log_probs.append(log_prob)
        entropies.append(entropy)

    def spread(flat: Tensor) -> Tensor:
        return torch.zeros(present.shape, dtype=flat.dtype, device=flat.device).masked_scatter(present, flat)

    values = (
        torch.zeros_like(tokens, dtype=torch.float) if value_head is None else value_head(states.float()).squeeze(-1)
    )
    return TokenLogProbs(spread(torch.cat(log_probs)), spread(torch.cat(entropies)), spread(values))


class _FrozenHead(torch.autograd.Function):
    """`maths.log_probs_and_entropy` behind a frozen LM head, without a gradient for the entropy.

    The gradient of a log-probability by its logits is known once the logits are: one-hot minus probabilities. So the
    forward pass brings it down to [N, H] and drops the logits, and the backward pass needs no second look at them.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, head: nn.Linear, tokens: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        # The very operations of the forward pass that scores, so that the first ratio is 1.
        logits = forward.logits(head, states)
        log_p = torch.log_softmax(logits / temperature, dim=-1)
        log_probs = log_p.gather(-1, tokens[:, None]).squeeze(-1)
        slope = log_p.exp()
        entropy = -torch.linalg.vecdot(slope, log_p)
        del logits, log_p
        slope.neg_().scatter_add_(-1, tokens[:, None], torch.ones_like(log_probs)[:, None])
        ctx.save_for_backward((slope.to(head.weight.dtype) @ head.weight).float().div_(temperature).to(states.dtype))
        ctx.mark_non_differentiable(entropy)
        return log_probs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (gradients[0][:, None] * slope).to(slope.dtype), None, None, None


def turn_dropout_off(model: nn.Module) -> None:
    """No dropout anywhere, in training mode too (gradient checkpointing needs that mode)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def check_plain_head(model: Any, batch: forward.Batch) -> None:
    """Raises UserError when the model's logits are more than its LM head on its trunk (scaled or capped logits)."""
    causal_lm = forward.causal_lm(model)
    with torch.no_grad():
        ours = causal_lm.get_output_embeddings()(forward.hidden_states(model, batch))[:, -1].float()
        theirs = causal_lm(input_ids=batch.ids, use_cache=False).logits[:, -1].float()
    if not torch.allclose(ours, theirs, rtol=0.02, atol=0.02 * float(theirs.abs().max())):
        raise UserError(
            f"model.name: {type(causal_lm).__name__} changes its logits after the LM head, which PPO does not support; "
            "choose another model"
        )
