"""The PPO loop. One update: sample rollouts, make experience, optimize; then log, and save.

Every draw (the order of the prompts, the tokens, the mini-batches) is keyed by seed, update and sample, and dropout is
off. So an update depends on the state below and its own number alone, a resumed run continues exactly, and several
processes do what one would: each answers, scores and learns from its share of the rows, and knows all of them.
"""

import math
import random
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from stages.models import forward, reward, sharding, stack
from stages.rl import logprobs, maths, reward_hacking
from stages.rl.checkpoint import State, load, save
from stages.rl.collectives import Collectives
from stages.rl.config import PpoConfig
from stages.rl.experience import Experience, estimate_advantages
from stages.rl.rollouts import Rollouts, prompt_of, response_limit, sample_rollouts
from stages.rl.stats import CURVE, log_stats
from stages.runtime import atomic, checkpoints, live, processes
from stages.runtime.errors import UserError


class Trainer:
    """Trains the adapter `ppo` of a stack, and a value head, on prompts.

    Args:
        model: a `PeftModel` with the adapters that `policy` and `reference` name, and `reward`.
        policy: the adapters of the policy, lowest first; the last is the one that trains.
        reference: those of the reference; empty for the bare base.
        reward_head: Linear(hidden, 1), frozen.
        prompts: token ids, ready to be answered.
        eos: the ids that end a response.
        accelerator: an `accelerate.Accelerator`; knows the device and the other processes.
        work: where checkpoints go.
    """

    def __init__(
        self,
        model: Any,
        policy: Sequence[str],
        reference: Sequence[str],
        reward_head: nn.Linear,
        prompts: Sequence[list[int]],
        eos: Sequence[int],
        pad: int,
        config: PpoConfig,
        seed: int,
        accelerator: Any,
        work: Path,
    ):
        self.model, self.policy, self.reference, self.reward_head = model, list(policy), list(reference), reward_head
        self.prompts, self.eos, self.pad = prompts, list(eos), pad
        self.config, self.seed, self.accelerator, self.work = config, seed, accelerator, work
        self.group = Collectives(accelerator)
        self.device = accelerator.device
        self.sharded = sharding.is_sharded(model)
        logprobs.turn_dropout_off(model)
        stack.activate(model, self.policy, trainable=self.policy[-1])
        self.value_head = nn.Linear(reward_head.in_features, 1).to(self.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.trained |= {f"value_head.{name}": p for name, p in self.value_head.named_parameters()}
        # fused, not only for speed: runtime/portable.py
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=config.learning_rate, weight_decay=0.0, fused=True)
        # float16 gradients underflow below 6e-8; a fixed scale lifts them, and an overflow stops the run.
        self.loss_scale = 1024.0 if model.dtype == torch.float16 else 1.0
        self.state = State(kl_coef=config.kl_coef)

    def train(self) -> State:
        """Run all updates, or those that are left after the newest whole checkpoint."""
        newest = processes.from_first(lambda: checkpoints.latest(self.work))
        if newest:
            self.state = load(newest, self.trained, self.optimizer)
        else:
            example = forward.to_batch([self.prompts[0]], [self.eos[:1]], self.pad, self.device)
            logprobs.check_plain_head(self.model, example)
        bar = tqdm(
            total=self.config.updates,
            initial=self.state.update,
            desc="ppo",
            unit="update",
            disable=not self.accelerator.is_main_process,
            dynamic_ncols=True,
        )
        with bar:
            while self.state.update < self.config.updates and not self.state.stopped_early:
                row = self.step()
                bar.update()
                live.note(row, self.state.update, self.config.updates)
                bar.set_postfix({name: f"{row[name]:.3g}" for name in ("score", "kl", "response_length")})
                last = self.state.update == self.config.updates or self.state.stopped_early
                if last or self.state.update % self.config.save_steps == 0:
                    self._save()
        return self.state

    def step(self) -> dict[str, float]:
        """One update; returns its row of the curve."""
        config, state = self.config, self.state
        if state.update == 0:
            self.normalize_rewards()
        rollouts = self.sample_rollouts()
        experience = self.make_experience(rollouts)
        stats = log_stats(rollouts, experience, state.kl_coef)
        if config.early_stop_kl is not None and stats["kl"] > config.early_stop_kl:
            print(
                f"ppo: stopped before update {state.update + 1}: the KL per response is {stats['kl']:.2f}, above "
                f"early_stop_kl {config.early_stop_kl}",
                file=sys.stderr,
            )
            state.stopped_early = True
            stats |= NOT_LEARNED
        else:
            stats |= self.optimize(rollouts, experience)
            if config.kl_target is not None:
                state.kl_coef = maths.adapt_kl_coef(
                    state.kl_coef, stats["kl"], config.kl_target, config.kl_horizon, config.batch_size
                )
        self._check_finite(**{name: torch.tensor(value, device=self.device) for name, value in stats.items()})
        state.update += 1
        row = {"step": state.update, "episodes": state.update * config.batch_size} | stats
        state.rows.append({name: row[name] for name in CURVE if name in row})
        if not state.warned and (signs := reward_hacking.signs(state.rows, config.kl_target)):
            print(f"ppo: warning at update {state.update}: {signs}", file=sys.stderr)
            state.warned = True
        return row

    def sample_rollouts(self) -> Rollouts:
        """1. The policy answers the update's prompts."""
        update = self.state.update
        episodes = range(update * self.config.batch_size, (update + 1) * self.config.batch_size)
        try:
            return sample_rollouts(
                self.model,
                [self.prompts[prompt_of(episode, len(self.prompts), self.seed)] for episode in episodes],
                [f"{self.seed}/episode/{episode}" for episode in episodes],
                response_limit(update, self.config, self.seed),
                self.eos,
                self.pad,
                self.config,
            )
        except UserError as error:  # logits that are no numbers
            raise UserError(f"ppo update {update + 1}: {error}. The last checkpoint is kept") from None

    def make_experience(self, rollouts: Rollouts) -> Experience:
        """2. Score the responses, compare them with the reference, estimate advantages."""
        config = self.config
        # In training mode like the forward that learns, so that both run the same code and the first ratio is 1.
        self.model.train()
        plan = self._plan(rollouts, range(len(rollouts.prompts)))
        with stack.active(self.model, ["reward"]), self._merged():
            scores = self._scores(rollouts, plan)
        self._check_finite(score=scores)
        with self._merged():
            policy = self._log_probs(rollouts, plan, self.value_head)
        with stack.active(self.model, self.reference), self._merged():
            reference = self._log_probs(rollouts, plan)
        self._check_finite(log_probs=policy.log_probs, values=policy.values)
        self._check_finite(**{"reference log_probs": reference.log_probs})

        normalized = (scores - self.state.reward_mean) / self.state.reward_scale
        if config.reward_clip is not None:
            normalized = normalized.clamp(-config.reward_clip, config.reward_clip)
        final_scores = normalized - config.missing_eos_penalty * (1 - rollouts.ended)
        return estimate_advantages(scores, final_scores, policy, reference, rollouts.mask, self.state.kl_coef, config)

    def _merged(self) -> AbstractContextManager[None]:
        """The active adapters in the weights, where that is exact."""
        exact = stack.merges_exactly(self.model)
        return stack.merged(self.model, only_if=self.config.merge_adapters_for_rollouts and exact)

    def _plan(self, rollouts: Rollouts, rows: Sequence[int]) -> list[list[int]]:
        """This process's share of the rows, those of each forward pass; a divided base needs one without any here and
        there, so that all processes make as many."""
        counts = forward.lengths(rollouts.prompts, rollouts.responses)
        mine = processes.share(sorted(rows, key=lambda row: (-counts[row], row)))
        plan = forward.plan(counts, self.config.tokens_per_batch, mine)
        if self.sharded:
            plan += [[]] * (self.group.largest(len(plan)) - len(plan))
        return plan

    def _scores(self, rollouts: Rollouts, plan: list[list[int]]) -> Tensor:
        scores = reward.score(
            self.model,
            self.reward_head,
            rollouts.prompts,
            rollouts.responses,
            self.pad,
            self.config.tokens_per_batch,
            plan,
        )
        return self.group.sum(torch.tensor(scores, device=self.device))

    def _log_probs(
        self, rollouts: Rollouts, plan: list[list[int]], value_head: nn.Linear | None = None
    ) -> logprobs.TokenLogProbs:
        config = self.config
        found = logprobs.rollout_log_probs(
            self.model, rollouts, plan, config.temperature, config.lm_head_chunk, self.pad, value_head
        )
        return logprobs.TokenLogProbs(*map(self.group.sum, found))

    def normalize_rewards(self) -> None:
        """0. Before the first update the policy is SFT: its answers' scores set the reward's zero and scale."""
        config = self.config
        if config.normalize_reward != "none":
            samples = range(config.normalization_samples)
            rollouts = sample_rollouts(
                self.model,
                [self.prompts[prompt_of(i, len(self.prompts), f"{self.seed}/normalization")] for i in samples],
                [f"{self.seed}/normalization/{i}" for i in samples],
                config.max_response_length,
                self.eos,
                self.pad,
                config,
            )
            with stack.active(self.model, ["reward"]):
                scores = self._scores(rollouts, self._plan(rollouts, samples)).double()
            self._check_finite(score=scores)
            self.state.reward_mean = float(scores.mean())
            if config.normalize_reward == "standardize":
                spread = float(scores.std(correction=0))
                self.state.reward_scale = spread if spread > 1e-6 else 1.0  # one response, or all with the same score
        if config.value_head_init == "reward":
            with torch.no_grad():
                self.value_head.weight.copy_(self.reward_head.weight / self.state.reward_scale)
                self.value_head.bias.fill_(-self.state.reward_mean / self.state.reward_scale)

    def optimize(self, rollouts: Rollouts, experience: Experience) -> dict[str, float]:
        """3. All passes over the rollouts, in mini-batches; returns the means of what the losses logged."""
        config, update = self.config, self.state.update
        lr_factor, warmup = 1.0, round(config.warmup_ratio * config.updates)
        if config.lr_scheduler_type == "cosine" or update < warmup:
            lr_factor = maths.cosine(update, config.updates, warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * lr_factor
        mini_batch_size = config.batch_size // config.num_mini_batches
        logged: list[list[float]] = []
        for epoch in range(config.num_ppo_epochs):
            order = list(range(config.batch_size))
            random.Random(f"{self.seed}/mini-batches/{update}/{epoch}").shuffle(order)
            for start in range(0, len(order), mini_batch_size):
                rows = order[start : start + mini_batch_size]
                sums, norm = self._optimizer_step(rollouts, experience, rows)
                tokens = sum(len(rollouts.responses[row]) for row in rows)
                if not logged and abs(sums[4] - 1) > self._ratio_tolerance(tokens):
                    raise RuntimeError(
                        f"update {update + 1}: the first ratio is {sums[4]:.6f}, not 1: sampling and training "
                        "disagree about the policy"
                    )
                logged.append([*sums, norm])
        policy, value, clipped, approx_kl, ratio, norm = (sum(c) / len(logged) for c in zip(*logged, strict=True))
        return {
            "policy_loss": policy,
            "value_loss": value,
            "loss": policy + config.vf_coef * value,
            "clip_fraction": clipped,
            "approx_kl": approx_kl,
            "ratio": ratio,
            "grad_norm": norm,
            "learning_rate": config.learning_rate * lr_factor,
        }

    def _optimizer_step(self, rollouts: Rollouts, data: Experience, chosen: list[int]) -> tuple[list[float], float]:
        """A step on the rows `chosen`: accumulate, then clip once. Gives token means and the norm."""
        config = self.config
        tokens = float(data.mask[chosen].sum())
        sums = torch.zeros(5, device=self.device, dtype=torch.float64)
        self.optimizer.zero_grad(set_to_none=False)
        plan = self._plan(rollouts, chosen)
        for rows, batch in forward.batches(rollouts.prompts, rollouts.responses, plan, self.pad, self.device):
            outputs = logprobs.response_log_probs(
                self.model, batch, config.temperature, config.lm_head_chunk, self.value_head
            )
            if not rows:  # it only keeps step with the other processes
                (outputs.log_probs.sum() * 0.0).backward()
                continue
            width = slice(outputs.log_probs.shape[1])
            losses = maths.losses(
                outputs.log_probs,
                data.log_probs[rows, width],
                data.advantages[rows, width],
                outputs.values,
                data.values[rows, width],
                data.returns[rows, width],
                data.mask[rows, width],
                config.cliprange,
                config.cliprange_value,
            )
            loss = (losses.policy + config.vf_coef * losses.value) / tokens
            (loss * self.loss_scale).backward()
            sums += torch.stack(list(losses)).detach().double()
        sums = self.group.sum(sums)
        self._check_finite(loss=sums)  # before the gradient: the first that is not finite gives the error its name
        gradients = torch.cat([self._gradient(p).flatten() for p in self.trained.values()])
        gradients = self.group.sum(gradients) / self.loss_scale
        norm = float(gradients.norm())
        self._check_finite(gradient=gradients)
        if norm > config.max_grad_norm:
            gradients *= config.max_grad_norm / (norm + 1e-6)
        start = 0
        for parameter in self.trained.values():
            parameter.grad = gradients[start : start + parameter.numel()].view_as(parameter).to(parameter.dtype)
            start += parameter.numel()
        self.optimizer.step()
        return (sums / tokens).tolist(), norm

    def _gradient(self, parameter: nn.Parameter) -> Tensor:
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.float()

    def _ratio_tolerance(self, tokens: int) -> float:
        # LLM.int8 selects outlier columns per batch, so results depend on the batch's composition.
        exact = self.model.dtype == torch.float32 and getattr(self.model, "hf_quantizer", None) is None
        return 1e-3 if exact else 0.05 * max(1.0, math.sqrt(256 / max(1, tokens)))  # a mean of few rounds more

    def _check_finite(self, **tensors: Tensor) -> None:
        self.group.check_finite(self.state.update + 1, **tensors)

    def _save(self) -> None:
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            with atomic.folder(self.work / f"checkpoint-{self.state.update}") as folder:
                save(folder, self.state, self.trained, self.optimizer)
                checkpoints.seal(folder)
            checkpoints.rotate(self.work)


NOT_LEARNED = dict.fromkeys(("policy_loss", "value_loss", "loss", "clip_fraction", "approx_kl", "grad_norm"), 0.0) | {
    "ratio": 1.0,
    "learning_rate": 0.0,
}
"""The losses' columns of an update that was stopped before it learned."""
