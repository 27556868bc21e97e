"""Logits → the next token: the filters of `Decoding`, and a draw by one uniform number per row.

The token is the one at which the cumulative probability, in the order of the vocabulary, passes the row's number.
"""

import torch
from torch import Tensor

from stages.generation.decoding import Decoding

LIKELIEST = 128
"""top_p is looked for among so many tokens; only where these don't hold that much, the whole vocabulary is sorted."""


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
    if not decoding.top_k and decoding.top_p == 1:
        return _draw(scores, uniforms)
    size = scores.shape[-1]
    if decoding.top_k:
        top, ids = scores.topk(min(decoding.top_k, size))
        total = top.logsumexp(-1, keepdim=True)
    else:
        total = scores.logsumexp(-1, keepdim=True)
        on_cpu = scores.device.type == "cpu"  # elsewhere the answer to `enough` would have to be waited for
        top, ids = scores.topk(min(LIKELIEST, size) if on_cpu else size)
        if on_cpu and size > LIKELIEST:
            enough = (top - total).exp().sum(-1) >= decoding.top_p
            if not enough.all():
                top, ids = scores.topk(size)
    if decoding.top_p < 1:
        probabilities = (top - total).exp()
        higher = probabilities.cumsum(-1) - probabilities
        kept = higher < decoding.top_p
        kept[:, 0] = True
        top = top.masked_fill(~kept, -torch.inf)
    ids, order = ids.sort(-1)  # the draw goes by the order of the vocabulary
    return ids.gather(-1, _draw(top.gather(-1, order), uniforms)[:, None]).squeeze(-1)


def _draw(scores: Tensor, uniforms: Tensor) -> Tensor:
    """The index [B] at which the cumulative probability of scores [B, n] passes the uniform number."""
    cumulative = torch.softmax(scores, dim=-1).double().cumsum(dim=-1)
    threshold = uniforms[:, None] * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, threshold, right=True).squeeze(-1)
    return found.clamp(max=scores.shape[-1] - 1)


def log_probs(logits: Tensor, tokens: Tensor, temperature: float) -> Tensor:
    """Log-probabilities [B] of the tokens [B], by logits [B, V] that the temperature divides."""
    return torch.log_softmax(logits.float() / temperature, dim=-1).gather(-1, tokens[:, None]).squeeze(-1)
