"""The PPO loop. One update: sample, score, estimate advantages, optimise; then log, and save.

Every draw (the order of the prompts, the tokens, the mini-batches) is keyed by seed, update and sample, and dropout is
off. So an update depends on the state below and its own number alone, a resumed run continues exactly, and several
processes sample what one would.
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from stages.generation import generate
from stages.models import forward, reward, sharding, stack
from stages.rl import logprobs, maths, reward_hacking
from stages.rl.checkpoint import State, load, save
from stages.rl.config import PpoConfig
from stages.runtime import atomic, checkpoints
from stages.runtime.errors import UserError

CURVE = (
    "step", "episodes", "score", "score_std", "reward", "kl", "kl_k3", "kl_coef", "entropy", "policy_loss",
    "value_loss", "loss", "clip_fraction", "approx_kl", "ratio", "grad_norm", "learning_rate", "eos_rate",
    "response_length", "repetition", "length_score_correlation", "explained_variance",
)  # fmt: skip
"""One row per update. score: the reward model's mean, raw. reward: mean per response after normalisation, penalty and
KL. kl: mean k1 per response, kl_k3: its k3 twin. entropy, ratio, approx_kl: means per token. response_length: tokens.
"""


class Rollouts(NamedTuple):
    """This process's responses: b rows, R positions."""

    prompts: list[list[int]]
    responses: list[list[int]]
    ended: Tensor
    """[b], 1 where the response closed with EOS."""

    @property
    def mask(self) -> Tensor:
        """[b, R], 1 on the tokens of each response."""
        lengths = torch.tensor([len(r) for r in self.responses], device=self.ended.device)
        return (torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]).float()


class Experience(NamedTuple):
    """What an update learns from; [b, R] each."""

    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    mask: Tensor


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
        self.device = accelerator.device
        self.rows_here = config.batch_size // accelerator.num_processes
        if config.batch_size % accelerator.num_processes:
            raise UserError(
                f"ppo.batch_size is {config.batch_size}, which {accelerator.num_processes} processes can't share "
                "evenly; make it a multiple of their number"
            )
        self.sharded = sharding.is_sharded(model)
        logprobs.turn_dropout_off(model)
        stack.activate(model, self.policy, trainable=self.policy[-1])
        self.value_head = nn.Linear(reward_head.in_features, 1).to(self.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.trained |= {f"value_head.{name}": p for name, p in self.value_head.named_parameters()}
        self.optimizer = torch.optim.AdamW(self.trained.values(), lr=config.learning_rate, weight_decay=0.0)
        # float16 gradients underflow below 6e-8; a fixed scale lifts them, and an overflow stops the run.
        self.loss_scale = 1024.0 if model.dtype == torch.float16 else 1.0
        self.state = State(kl_coef=config.kl_coef)

    def train(self) -> State:
        """Run all updates, or those that are left after the newest whole checkpoint."""
        newest = checkpoints.latest(self.work)
        if newest:
            self.state = load(newest, self.trained, self.optimizer)
        else:
            probe = forward.to_batch([self.prompts[0]], [self.eos[:1]], self.pad, self.device)
            logprobs.check_plain_head(self.model, probe)
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
                bar.set_postfix({name: f"{row[name]:.3g}" for name in ("score", "kl", "response_length")})
                last = self.state.update == self.config.updates or self.state.stopped_early
                if last or self.state.update % self.config.save_steps == 0:
                    self._save()
        return self.state

    def step(self) -> dict[str, float]:
        """One update; returns its row of the curve."""
        rollouts = self.sample()
        _, experience, log = self.evaluate(rollouts)
        if self.config.early_stop_kl is not None and log["kl"] > self.config.early_stop_kl:
            print(
                f"ppo: stopped before update {self.state.update + 1}: the KL per response is {log['kl']:.2f}, above "
                f"early_stop_kl {self.config.early_stop_kl}",
                file=sys.stderr,
            )
            self.state.stopped_early = True
            log |= dict.fromkeys(("policy_loss", "value_loss", "loss", "clip_fraction", "approx_kl", "grad_norm"), 0.0)
            log |= {"ratio": 1.0, "learning_rate": 0.0}
        else:
            log |= self.optimise(rollouts, experience)
            if self.config.kl_target is not None:
                self.state.kl_coef = maths.adapt_kl_coef(
                    self.state.kl_coef, log["kl"], self.config.kl_target, self.config.kl_horizon, self.config.batch_size
                )
        for name, value in log.items():
            self._finite(name, torch.tensor(value, device=self.device))
        self.state.update += 1
        row = {"step": self.state.update, "episodes": self.state.update * self.config.batch_size} | log
        self.state.rows.append({name: row[name] for name in CURVE})
        if not self.state.warned and (signs := reward_hacking.signs(self.state.rows, self.config.kl_target)):
            print(f"ppo: warning at update {self.state.update}: {signs}", file=sys.stderr)
            self.state.warned = True
        return row

    # 1. sample

    def sample(self) -> Rollouts:
        """Draw this update's prompts and answer this process's share of them."""
        update, config = self.state.update, self.config
        first = update * config.batch_size + self.accelerator.process_index * self.rows_here
        episodes = range(first, first + self.rows_here)
        prompts = [self.prompts[self._prompt_of(episode)] for episode in episodes]
        limit = random.Random(f"{self.seed}/length/{update}").randint(
            config.min_response_length, config.max_response_length
        )
        decoding = generate.Decoding(
            do_sample=True, temperature=config.temperature, top_k=0, top_p=1.0, repetition_penalty=1.0
        )
        responses: list[list[int]] = [[] for _ in prompts]
        ended = torch.zeros(len(prompts), device=self.device)
        self.model.eval()
        with stack.merged(self.model, only_if=config.merge_adapters_for_rollouts):
            for i, answer in generate.generate(
                self.model,
                prompts,
                [f"{self.seed}/episode/{episode}" for episode in episodes],
                decoding,
                limit,
                config.local_rollout_forward_batch_size,
                self.eos,
                self.pad,
            ):
                responses[i], ended[i] = answer.ids, float(answer.ended)
        return Rollouts(prompts, responses, ended)

    def _prompt_of(self, episode: int) -> int:
        """Prompts come in a new random order each time that all of them were drawn."""
        epoch, position = divmod(episode, len(self.prompts))
        if getattr(self, "_epoch", None) != epoch:
            self._epoch, self._order = epoch, list(range(len(self.prompts)))
            random.Random(f"{self.seed}/prompts/{epoch}").shuffle(self._order)
        return self._order[position]

    # 2. score and estimate advantages

    def evaluate(self, rollouts: Rollouts) -> tuple[Tensor, Experience, dict[str, float]]:
        """Scores [b], experience, and what the curve says of them."""
        config, state, mask = self.config, self.state, rollouts.mask
        # In training mode like the forward that learns, so that both run the same code and the first ratio is 1.
        self.model.train()
        with torch.no_grad():
            with stack.active(self.model, ["reward"]):
                score = self._score(rollouts)
            self._finite("score", score)
            if state.update == 0:
                self._start_from(score)
            log_probs, entropy, values = self._words(rollouts, value_head=self.value_head)
            with stack.active(self.model, self.reference):
                reference, _, _ = self._words(rollouts)
            assert values is not None
            for name, tensor in (("log_probs", log_probs), ("values", values), ("reference log_probs", reference)):
                self._finite(name, tensor)

            kl = (log_probs - reference) * mask
            final = (score - state.reward_mean) / state.reward_scale
            if config.reward_clip is not None:
                final = final.clamp(-config.reward_clip, config.reward_clip)
            final = final - config.missing_eos_penalty * (1 - rollouts.ended)
            rewards = maths.token_rewards(kl, final, mask, state.kl_coef)
            shaped = rewards
            if config.whiten_rewards:
                shaped = maths.whiten(rewards, mask, *self._moments(rewards, mask), shift_mean=False)
            raw_advantages, returns = maths.gae(shaped, values, mask, config.gamma, config.lam)
            advantages = maths.whiten(raw_advantages, mask, *self._moments(raw_advantages, mask))

        lengths = mask.sum(1)
        repetition = torch.tensor([maths.repetition(r) for r in rollouts.responses], device=self.device)
        rows = torch.stack(
            [score, rewards.sum(1), kl.sum(1), (maths.k3(reference - log_probs) * mask).sum(1), entropy.sum(1), lengths,
             rollouts.ended, repetition], dim=1,
        )  # fmt: skip
        everyone: Tensor = self.accelerator.gather(rows.double())
        means = everyone.mean(0).tolist()
        _, spread = self._moments(returns - values, mask)
        _, total = self._moments(returns, mask)
        log = {
            "score": means[0],
            "score_std": float(everyone[:, 0].std(correction=0)),
            "reward": means[1],
            "kl": means[2],
            "kl_k3": means[3],
            "kl_coef": state.kl_coef,
            "entropy": float(everyone[:, 4].sum() / everyone[:, 5].sum()),
            "response_length": means[5],
            "eos_rate": means[6],
            "repetition": means[7],
            "length_score_correlation": maths.correlation(everyone[:, 5], everyone[:, 0]),
            "explained_variance": 1 - float(spread / total) if float(total) else 0.0,
        }
        return score, Experience(log_probs, values, advantages, returns, mask), log

    def _start_from(self, score: Tensor) -> None:
        """Before the first update the policy is the SFT model: its answers' scores set the reward's zero and scale."""
        everyone = self.accelerator.gather(score.double())
        if self.config.normalize_reward != "none":
            self.state.reward_mean = float(everyone.mean())
        if self.config.normalize_reward == "standardize":
            spread = float(everyone.std(correction=0))
            self.state.reward_scale = spread if spread > 1e-6 else 1.0  # one response, or all with the same score
        if self.config.value_head_init == "reward":
            self.value_head.weight.copy_(self.reward_head.weight / self.state.reward_scale)
            self.value_head.bias.fill_(-self.state.reward_mean / self.state.reward_scale)

    def _score(self, rollouts: Rollouts) -> Tensor:
        score = torch.zeros(len(rollouts.responses), device=self.device)
        for rows in self._by_length(rollouts, range(len(score)), self.config.local_rollout_forward_batch_size):
            score[rows] = reward.scores_of(self.model, self.reward_head, self._batch(rollouts, rows))
        return score

    def _words(self, rollouts: Rollouts, value_head: nn.Linear | None = None) -> logprobs.Words:
        shape = rollouts.mask.shape
        log_probs, entropy, values = (torch.zeros(shape, device=self.device) for _ in range(3))
        for rows in self._by_length(
            rollouts, range(len(rollouts.responses)), self.config.local_rollout_forward_batch_size
        ):
            said = self._say(rollouts, rows, value_head)
            width = said.log_probs.shape[1]
            log_probs[rows, :width], entropy[rows, :width] = said.log_probs, said.entropy
            if said.values is not None:
                values[rows, :width] = said.values
        return logprobs.Words(log_probs, entropy, values)

    def _say(self, rollouts: Rollouts, rows: list[int], value_head: nn.Linear | None) -> logprobs.Words:
        batch = self._batch(rollouts, rows)
        return logprobs.words(self.model, batch, self.config.temperature, self.config.lm_head_chunk, value_head)

    # 3. optimise

    def optimise(self, rollouts: Rollouts, experience: Experience) -> dict[str, float]:
        """All passes over the rollouts; returns the means of what the losses logged."""
        config, update = self.config, self.state.update
        share = 1.0
        if config.lr_scheduler_type == "cosine":
            share = maths.cosine(update, config.updates, round(config.warmup_ratio * config.updates))
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * share
        mini = config.batch_size // config.num_mini_batches
        logged: list[list[float]] = []
        for epoch in range(config.num_ppo_epochs):
            order = list(range(config.batch_size))
            random.Random(f"{self.seed}/mini-batches/{update}/{epoch}").shuffle(order)
            for start in range(0, len(order), mini):
                sums, norm = self._optimizer_step(rollouts, experience, order[start : start + mini])
                if not logged and abs(sums[4] - 1) > self._ratio_tolerance():
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
            "learning_rate": config.learning_rate * share,
        }

    def _optimizer_step(self, rollouts: Rollouts, data: Experience, chosen: list[int]) -> tuple[list[float], float]:
        """A step on the rows `chosen` of all processes: accumulate, then clip once. Gives token means and the norm."""
        first = self.accelerator.process_index * self.rows_here
        here = [row - first for row in chosen if first <= row < first + self.rows_here]
        tokens = float(self._sum(data.mask[here].sum()))
        sums = torch.zeros(5, device=self.device, dtype=torch.float64)
        self.optimizer.zero_grad(set_to_none=False)
        size = self.config.per_device_train_batch_size
        for rows in self._by_length(rollouts, here, size):
            said = self._say(rollouts, rows, self.value_head)
            assert said.values is not None
            cut = slice(said.log_probs.shape[1])
            found = maths.losses(
                said.log_probs,
                data.log_probs[rows, cut],
                data.advantages[rows, cut],
                said.values,
                data.values[rows, cut],
                data.returns[rows, cut],
                data.mask[rows, cut],
                self.config.cliprange,
                self.config.cliprange_value,
            )
            loss = (found.policy + self.config.vf_coef * found.value) / tokens
            (loss * self.loss_scale).backward()
            sums += torch.stack(list(found)).detach().double()
        if self.sharded:  # others may have more rows, and fetch the layers that often
            most = max(Counter(row // self.rows_here for row in chosen).values())
            for _ in range(-(-most // size) - -(-len(here) // size)):
                (self._say(rollouts, [0], None).log_probs.sum() * 0.0).backward()
        sums = self._sum(sums)
        self._finite("loss", sums)  # before the gradient: the first that is not finite gives the error its name
        gradients = torch.cat([self._gradient(p).flatten() for p in self.trained.values()])
        gradients = self._sum(gradients) / self.loss_scale
        norm = float(gradients.norm())
        self._finite("gradient", gradients)
        if norm > self.config.max_grad_norm:
            gradients *= self.config.max_grad_norm / (norm + 1e-6)
        start = 0
        for parameter in self.trained.values():
            parameter.grad = gradients[start : start + parameter.numel()].view_as(parameter).to(parameter.dtype)
            start += parameter.numel()
        self.optimizer.step()
        return (sums / tokens).tolist(), norm

    def _gradient(self, parameter: nn.Parameter) -> Tensor:
        return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.float()

    def _ratio_tolerance(self) -> float:
        # 8 bits choose the columns that stay exact by the whole batch, so another batch rounds otherwise.
        exact = self.model.dtype == torch.float32 and getattr(self.model, "hf_quantizer", None) is None
        return 1e-3 if exact else 0.05

    # what the parts share

    def _batch(self, rollouts: Rollouts, rows: list[int]) -> forward.Batch:
        return forward.to_batch(
            [rollouts.prompts[i] for i in rows], [rollouts.responses[i] for i in rows], self.pad, self.device
        )

    def _by_length(self, rollouts: Rollouts, rows: Sequence[int], size: int) -> Iterator[list[int]]:
        """Groups of at most `size` rows of about one length, long ones first."""
        lengths = [len(p) + len(r) for p, r in zip(rollouts.prompts, rollouts.responses, strict=True)]
        return forward.by_length(lengths, rows, size)

    def _sum(self, tensor: Tensor) -> Tensor:
        total: Tensor = self.accelerator.reduce(tensor, reduction="sum")
        return total

    def _moments(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of x [b, R] over the tokens of all processes."""
        count = self._sum(mask.sum())
        mean = self._sum((x * mask).sum()) / count
        return mean, self._sum((((x - mean) * mask) ** 2).sum()) / count

    def _finite(self, name: str, tensor: Tensor) -> None:
        """Every process calls it with its own tensor, so that all of them stop where one must."""
        if self._sum(tensor.isfinite().logical_not().sum()).item():
            raise UserError(
                f"ppo update {self.state.update + 1}: `{name}` is not finite. The last checkpoint is kept; lower "
                "ppo.learning_rate, or use bfloat16 or float32 instead of float16"
            )

    def _save(self) -> None:
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            with atomic.folder(self.work / f"checkpoint-{self.state.update}") as folder:
                save(folder, self.state, self.trained, self.optimizer)
                checkpoints.seal(folder)
            checkpoints.rotate(self.work)
