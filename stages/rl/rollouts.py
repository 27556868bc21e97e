"""The prompts of an update and the responses that the policy gave to them.

Every draw is keyed by the seed and the episode's number. An update therefore samples the same responses in a resumed
run, and several processes sample together what one would.
"""

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.generation import decoding, generate
from stages.models import sharding, stack
from stages.rl.config import PpoConfig
from stages.runtime import processes


class Rollouts(NamedTuple):
    """The responses of an update, on every process: B rows, R positions."""

    prompts: list[list[int]]
    responses: list[list[int]]
    ended: Tensor
    """[B], 1 where the response closed with EOS."""
    sampler_log_probs: Tensor | None = None
    """[B, R], as the sampler saw them, 0 where masked; None where they are not kept."""

    @property
    def mask(self) -> Tensor:
        """[B, R], 1 on the tokens of each response."""
        lengths = torch.tensor([len(r) for r in self.responses], device=self.ended.device)
        return (torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]).float()


def sample_rollouts(
    model: Any,
    prompts: list[list[int]],
    keys: Sequence[str],
    limit: int,
    eos: Sequence[int],
    pad: int,
    config: PpoConfig,
) -> Rollouts:
    """Answer the prompts with at most `limit` tokens each, under the active adapters; the processes share them out.

    Args:
        keys: what seeds the draws of each response.
    """
    mine = processes.share(range(len(prompts)), evenly=sharding.is_sharded(model))
    found = []
    plain = decoding.PLAIN.replace(temperature=config.temperature)
    device = next(model.parameters()).device
    exact = stack.merges_exactly(model)  # then the sampler's log-probabilities are the trainer's
    model.eval()
    with stack.merged(model, only_if=config.merge_adapters_for_rollouts):
        for i, answer in generate.generate(
            model,
            [prompts[row] for row in mine],
            [keys[row] for row in mine],
            plain,
            limit,
            config.local_rollout_forward_batch_size,
            eos,
            pad,
            not exact,
            config.cuda_graphs,
        ):
            found.append((mine[i], answer))
    by_row = dict(answered for part in processes.everyones(found) for answered in part)
    answers = [by_row[row] for row in range(len(prompts))]
    log_probs = None
    if all(answer.log_probs for answer in answers):
        padded = [answer.log_probs + [0.0] * (limit - len(answer.log_probs)) for answer in answers]
        log_probs = torch.tensor(padded, device=device)[:, : max(len(answer.ids) for answer in answers)]
    ended = torch.tensor([float(answer.ended) for answer in answers], device=device)
    return Rollouts(prompts, [answer.ids for answer in answers], ended, log_probs)


def response_limit(update: int, config: PpoConfig, seed: int) -> int:
    """The most tokens of a response in this update."""
    draw = random.Random(f"{seed}/length/{update}")
    return draw.randint(config.min_response_length, config.max_response_length)


def prompt_of(episode: int, count: int, seed: int | str) -> int:
    """The index of an episode's prompt; all prompts come up once, in a new order, before any comes up again."""
    epoch, position = divmod(episode, count)
    return _prompt_order(epoch, count, seed)[position]


@lru_cache(maxsize=2)  # an update may span two epochs
def _prompt_order(epoch: int, count: int, seed: int | str) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}/prompts/{epoch}").shuffle(order)
    return order
