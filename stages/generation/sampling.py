"""Logits → the next token: the filters of `Decoding`, and a draw by one uniform number per row.

The token is the one at which the cumulative probability, in the order of the vocabulary, passes the row's number.
"""

import torch
from torch import Tensor

from stages.generation.decoding import Decoding
from stages.runtime.errors import UserError


def refuse_nan(broken: Tensor) -> None:
    """Raise UserError where logits were not numbers: a token would come out of them all the same."""
    if broken:
        raise UserError(
            "the model's logits are not numbers (NaN): set model.dtype to bfloat16 or float32, model.quantization to "
            "none, and see whether its weights are whole"
        )


def next_tokens(logits: Tensor, uniforms: Tensor, seen: Tensor | None, decoding: Decoding) -> Tensor:
    """Args:
        logits: [B, V].
        uniforms: float64 [B], in [0, 1). In float32 one could round to 1.
        seen: bool [B, V], the tokens of the answers so far; None without a repetition penalty.

    Returns:
        int64 [B].
    """
    scores = logits.float()
    if seen is not None:  # Keskar et al. 2019, section 4.1
        penalized = torch.where(scores < 0, scores * decoding.repetition_penalty, scores / decoding.repetition_penalty)
        scores = torch.where(seen, penalized, scores)
    if not decoding.do_sample:
        return scores.argmax(-1)
    scores = scores / decoding.temperature
    if not decoding.top_k:
        return _draw(_top_p(scores, largest_first(scores), decoding.top_p) if decoding.top_p < 1 else scores, uniforms)
    top, ids = scores.topk(min(decoding.top_k, scores.shape[-1]))
    ids, order = ids.sort(-1)  # the draw goes by the order of the vocabulary
    left = top.gather(-1, order)
    if decoding.top_p < 1:
        left = _top_p(left, top, decoding.top_p)
    return ids.gather(-1, _draw(left, uniforms)[:, None]).squeeze(-1)


def _top_p(scores: Tensor, descending: Tensor, top_p: float) -> Tensor:
    """scores [B, n] with −∞ in place of those that are not among the likeliest which hold `top_p` together.

    Args:
        descending: the same scores, sorted.
    """
    probabilities = torch.softmax(descending, dim=-1)
    higher = cumulated(probabilities) - probabilities
    count = (higher < top_p).sum(-1, keepdim=True).clamp(min=1)
    return torch.where(scores < descending.gather(-1, count - 1), -torch.inf, scores)


def largest_first(scores: Tensor) -> Tensor:
    """scores [B, n] from the largest to the smallest. On a CPU by numpy, which takes a twentieth of torch's time."""
    if scores.device.type != "cpu":
        return scores.sort(-1, descending=True).values
    negated = (-scores).numpy()
    negated.sort(-1)
    return torch.from_numpy(negated).neg_()


def _draw(scores: Tensor, uniforms: Tensor) -> Tensor:
    """The index [B] at which the cumulative probability of scores [B, n] passes the uniform number."""
    cumulative = cumulated(torch.softmax(scores, dim=-1).double())
    threshold = uniforms[:, None] * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    return found.clamp(max=scores.shape[-1] - 1)


def cumulated(probabilities: Tensor, exact: bool | None = None) -> Tensor:
    """The sums of probabilities [B, n] up to each.

    Args:
        exact: as whole numbers of 2⁻⁵², whose sum no order of adding changes; by default on GPUs, where the order of a
            floating-point sum is not fixed.
    """
    if probabilities.is_cuda if exact is None else exact:
        whole = (probabilities.double() * 2**52).long().cumsum(-1)
        return (whole.double() * 2**-52).to(probabilities.dtype)
    return probabilities.cumsum(-1)


def log_probs(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Log-probabilities [B] of the tokens [B], by logits [B, V] that the temperature divides."""
    return torch.log_softmax(logits.float() / temperature, dim=-1).gather(-1, tokens[:, None]).squeeze(-1)
