"""One module, four views: what the policy, its value head, the reference and the reward model say about responses.

All of them read one frozen base; they differ in which adapters are active. Only the positions that predict a response
token go through the LM head, and these in chunks.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stages.core.errors import UserError
from stages.core.ppo import maths


class Batch(NamedTuple):
    """Left-padded prompts, each followed at column P by its right-padded response of at most R tokens."""

    ids: Tensor
    """[B, P + R]."""
    mask: Tensor
    """[B, P + R], 1 on a prompt's and a response's tokens."""
    prompt_length: int
    """P."""

    @property
    def response(self) -> Tensor:
        """[B, R]."""
        return self.ids[:, self.prompt_length :]

    @property
    def response_mask(self) -> Tensor:
        """[B, R]."""
        return self.mask[:, self.prompt_length :]


def to_batch(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad: int, device: Any) -> Batch:
    """Pad the rows to the longest prompt and the longest response among them."""
    before, after = max(map(len, prompts)), max(1, *map(len, responses))
    ids, mask = [], []
    for prompt, response in zip(prompts, responses, strict=True):
        left, right = before - len(prompt), after - len(response)
        ids.append([pad] * left + [*prompt, *response] + [pad] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(response)) + [0] * right)
    return Batch(torch.tensor(ids, device=device), torch.tensor(mask, device=device), before)


class Words(NamedTuple):
    """What a language model says about each response token; [B, R] each, 0 where masked."""

    log_probs: Tensor
    entropy: Tensor
    values: Tensor | None


def hidden_states(model: Any, batch: Batch) -> Tensor:
    """Last hidden states [B, P + R, H] of the trunk under the active adapters."""
    causal_lm = _causal_lm(model)
    states: Tensor = causal_lm.get_decoder()(**_inputs(causal_lm, batch)).last_hidden_state
    return states


def _causal_lm(model: Any) -> Any:
    """The language model below its adapters, which stay active."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _inputs(causal_lm: Any, batch: Batch) -> dict[str, Any]:
    inputs = {"input_ids": batch.ids, "attention_mask": batch.mask, "use_cache": False}
    if not getattr(causal_lm, "derives_position_ids", False):
        inputs["position_ids"] = (batch.mask.cumsum(-1) - 1).clamp(min=0)
    return inputs


def words(model: Any, batch: Batch, temperature: float, chunk: int, value_head: nn.Linear | None = None) -> Words:
    """Log-probabilities, entropies and, with a head, values of the response tokens, from one forward pass.

    Args:
        temperature: divides the logits, as in sampling.
        chunk: rows that go through the LM head at a time; no chunk's logits are kept for the backward pass.
    """
    head = _causal_lm(model).get_output_embeddings()
    present = batch.response_mask.bool()
    states = hidden_states(model, batch)[:, batch.prompt_length - 1 : -1][present]
    tokens = batch.response[present]

    def through_head(part: Tensor, part_tokens: Tensor) -> tuple[Tensor, Tensor]:
        return maths.log_probs_and_entropy(head(part), part_tokens, temperature)

    log_probs, entropies = [], []
    for part, part_tokens in zip(states.split(chunk), tokens.split(chunk), strict=True):
        if torch.is_grad_enabled() and type(head) is nn.Linear and not head.weight.requires_grad:
            log_prob, entropy = _FrozenHead.apply(part, head.weight, head.bias, part_tokens, temperature)
        elif torch.is_grad_enabled():  # a head that learns, such as one with LoRA: its logits are computed twice
            log_prob, entropy = checkpoint(through_head, part, part_tokens, use_reentrant=False)
        else:
            log_prob, entropy = through_head(part, part_tokens)
        log_probs.append(log_prob)
        entropies.append(entropy)

    def spread(flat: Tensor) -> Tensor:
        return torch.zeros(present.shape, dtype=flat.dtype, device=flat.device).masked_scatter(present, flat)

    values = None
    if value_head is not None:
        values = spread(value_head(states.float()).squeeze(-1))
    return Words(spread(torch.cat(log_probs)), spread(torch.cat(entropies)), values)


class _FrozenHead(torch.autograd.Function):
    """`maths.log_probs_and_entropy` behind a frozen LM head, without a gradient for the entropy.

    The gradient of a log-probability by its logits is known once the logits are: one-hot minus probabilities. So the
    forward pass brings it down to [N, H] and drops the logits, and the backward pass needs no second look at them.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        # The very operations of the forward pass that scores, so that the first ratio is 1.
        logits = nn.functional.linear(states, weight, bias)
        log_p = torch.log_softmax(logits.float() / temperature, dim=-1)
        log_probs = log_p.gather(-1, tokens[:, None]).squeeze(-1)
        slope = log_p.exp()
        entropy = -torch.linalg.vecdot(slope, log_p)
        del logits, log_p
        slope.neg_().scatter_add_(-1, tokens[:, None], torch.ones_like(log_probs)[:, None])
        ctx.save_for_backward((slope.to(weight.dtype) @ weight).float().div_(temperature).to(states.dtype))
        ctx.mark_non_differentiable(entropy)
        return log_probs, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        (slope,) = ctx.saved_tensors
        return (gradients[0][:, None] * slope).to(slope.dtype), None, None, None, None


def scores(model: Any, batch: Batch, head: nn.Linear) -> Tensor:
    """The reward model's score [B], read at each row's last token."""
    states = hidden_states(model, batch)
    last = batch.prompt_length - 1 + batch.response_mask.sum(1)
    at_end = states[torch.arange(len(states), device=states.device), last]
    return head(at_end.float()).squeeze(-1)


def turn_dropout_off(model: nn.Module) -> None:
    """No dropout anywhere, in training mode too (gradient checkpointing needs that mode)."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]


def check_plain_head(model: Any, batch: Batch) -> None:
    """Raises UserError when the model's logits are more than its LM head on its trunk (scaled or capped logits)."""
    causal_lm = _causal_lm(model)
    with torch.no_grad():
        ours = causal_lm.get_output_embeddings()(hidden_states(model, batch))[:, -1].float()
        theirs = causal_lm(**_inputs(causal_lm, batch)).logits[:, -1].float()
    if not torch.allclose(ours, theirs, rtol=0.02, atol=0.02 * float(theirs.abs().max())):
        raise UserError(
            f"model.name: {type(causal_lm).__name__} changes its logits after the LM head, which PPO here does not "
            "know how to do; choose another model"
        )
