"""Prompts → answers, in large batches of about one length.

Randomness is one uniform number per (sample, position), drawn before. So an answer is the same whatever batch, order
or process its prompt lands in.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field

from stages.models import sharding
from stages.runtime.params import Section, Temperature


class Answer(NamedTuple):
    ids: list[int]
    """The new tokens, the EOS included if there is one."""
    ended: bool
    """Whether the model ended it, and not the limit."""


class Decoding(Section):
    """How the next token is chosen; everything that transformers would set by itself is set here."""

    do_sample: bool = True
    """Draw from the distribution; else take the likeliest."""
    temperature: Temperature = 0.95
    """Divides the logits."""
    top_k: Annotated[int, Field(ge=0, le=2**20)] = 0
    """Keep the k likeliest tokens; 0 keeps all."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Keep the likeliest tokens that hold this much probability together; 1 keeps all."""
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] = 1.0
    """Above 1, lowers the logits of what was said before (Keskar et al. 2019); 1 does nothing."""


def eos_ids(model: Any, tokenizer: Any) -> list[int]:
    """The ids that end an answer: the tokenizer's EOS, and what the model's own generation config adds."""
    more = model.generation_config.eos_token_id
    return sorted({tokenizer.eos_token_id, *([] if more is None else [more] if isinstance(more, int) else more)})


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[str],
    decoding: Decoding,
    max_new_tokens: int,
    batch_size: int,
    eos: Sequence[int],
    pad: int,
) -> Iterator[tuple[int, Answer]]:
    """Answer each prompt; yields (its index, its answer), long prompts first.

    Args:
        keys: one per prompt; what seeds its randomness.
        eos: the ids that end an answer.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    device = next(model.parameters()).device
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1, eos_token_id=list(eos), pad_token_id=pad
    )
    sharded = sharding.is_sharded(model)
    by_length = sorted(range(len(prompts)), key=lambda i: (-len(prompts[i]), i))
    for start in range(0, len(by_length), batch_size):
        batch = by_length[start : start + batch_size]
        ids, mask = left_pad([prompts[i] for i in batch], pad, device)
        drawn = [_uniforms(keys[i], max_new_tokens) for i in batch]
        uniforms = torch.tensor(drawn, dtype=torch.float64, device=device)  # in float32 one could round to 1
        with torch.no_grad():
            sequences = model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=config,
                logits_processor=LogitsProcessorList(_processors(decoding, uniforms, ids.shape[1])),
                synced_gpus=sharded,  # who is done goes on until all are
            )
        for i, row in zip(batch, sequences[:, ids.shape[1] :].tolist(), strict=True):
            end = next((n for n, token in enumerate(row, start=1) if token in eos), None)
            yield i, Answer(row[:end], ended=end is not None)


def left_pad(sequences: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[Any, Any]:
    """Ids and mask, both [len(sequences), longest], padded on the left."""
    import torch

    longest = max(map(len, sequences))
    ids = torch.tensor([[pad] * (longest - len(s)) + list(s) for s in sequences], device=device)
    mask = torch.tensor([[0] * (longest - len(s)) + [1] * len(s) for s in sequences], device=device)
    return ids, mask


def _uniforms(key: str, count: int) -> list[float]:
    generator = random.Random(key)
    return [generator.random() for _ in range(count)]


def _processors(decoding: Decoding, uniforms: Any, prompt_length: int) -> list[Any]:
    from transformers import (
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    processors: list[Any] = []
    if decoding.repetition_penalty != 1:
        processors.append(
            RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty, prompt_ignore_length=prompt_length)
        )
    if decoding.do_sample:
        if decoding.temperature != 1:
            processors.append(TemperatureLogitsWarper(decoding.temperature))
        if decoding.top_k:
            processors.append(TopKLogitsWarper(decoding.top_k))
        if decoding.top_p < 1:
            processors.append(TopPLogitsWarper(decoding.top_p))
        processors.append(InverseCdf(uniforms, prompt_length))
    return processors


class InverseCdf:
    """Sample the token at which the cumulative probability passes the row's uniform number of this position.

    A logits processor whose result leaves one token possible, so that greedy decoding takes it.
    """

    def __init__(self, uniforms: Any, prompt_length: int):
        self.uniforms = uniforms
        self.prompt_length = prompt_length

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        import torch

        cumulative = torch.softmax(scores.float(), dim=-1).double().cumsum(dim=-1)
        position = input_ids.shape[1] - self.prompt_length
        threshold = self.uniforms[:, position : position + 1].double() * cumulative[:, -1:]
        token = torch.searchsorted(cumulative, threshold, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter(-1, token, 0.0)
