"""Answers by transformers' own `generate`, with the same draws as the loop's: for models that the loop can't run.

These are models whose layers were divided among processes, and models that keep another state than keys and values. It
is also what the tests compare the loop with.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from stages.generation import sampling
from stages.generation.decoding import Decoding
from stages.generation.loop import cut


def generate(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    uniforms: Tensor,
    decoding: Decoding,
    eos: Sequence[int],
    pad: int,
    synced: bool = False,
) -> list[list[int]]:
    """The new tokens of each row, cut behind the first EOS.

    Args:
        ids, mask: [B, P], padded on the left.
        uniforms: float64 [B, most new tokens].
        synced: keep running forward passes until all processes are done; a divided model needs every process.
    """
    config = GenerationConfig(
        max_new_tokens=uniforms.shape[1], do_sample=False, num_beams=1, eos_token_id=list(eos), pad_token_id=pad
    )
    with torch.no_grad():
        sequences = model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList(processors(decoding, uniforms, ids.shape[1])),
            synced_gpus=synced,
        )
    return [cut(row, eos) for row in sequences[:, ids.shape[1] :].tolist()]


def processors(decoding: Decoding, uniforms: Tensor, prompt_length: int) -> list[Any]:
    """The filters, and the draw, as transformers' logits processors."""
    found: list[Any] = []
    if decoding.repetition_penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty, prompt_ignore_length=prompt_length))
    if decoding.do_sample:
        if decoding.temperature != 1:
            found.append(TemperatureLogitsWarper(decoding.temperature))
        if decoding.top_k:
            found.append(TopKLogitsWarper(decoding.top_k))
        if decoding.top_p < 1:
            found.append(TopPLogitsWarper(decoding.top_p))
        found.append(InverseCdf(uniforms, prompt_length))
    return found


class InverseCdf:
    """Sample the token at which the cumulative probability passes the row's uniform number of this position.

    A logits processor whose result leaves one token possible, so that greedy decoding takes it.
    """

    def __init__(self, uniforms: Tensor, prompt_length: int):
        self.uniforms = uniforms
        self.prompt_length = prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        sampling.refuse_nan(scores.isnan().any())
        cumulative = sampling.cumulated(torch.softmax(scores.float(), dim=-1).double())
        position = input_ids.shape[1] - self.prompt_length
        threshold = self.uniforms[:, position : position + 1].double() * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, threshold, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)
