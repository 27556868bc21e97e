"""PPO written out a second time, as naively as can be: four full models with merged weights, one row at a time.

It shares nothing with the trainer but the recipe of its draws.
"""

import copy
import math
import random

import tiny_models
import torch
from safetensors.torch import load_file
from torch.func import functional_call
from transformers import AutoModelForCausalLM

SEED = 5
EOS = [3, *range(40, 70)]
"""So many that a third of the random model's responses end by themselves."""


class Naive:
    """PPO by the book. Its numbers are Python's own where they are not a model's."""

    def __init__(self, folders, trainer):
        self.config, self.prompts = trainer.config, trainer.prompts
        self.updates = self.config.total_episodes // self.config.batch_size
        base = AutoModelForCausalLM.from_pretrained(folders.base, dtype=torch.float32)
        resumed = self.config.resume_lora_training
        start = base if resumed else tiny_models.multiply_out(copy.deepcopy(base), folders.sft)
        self.policy, self.reference, self.value = (copy.deepcopy(start) for _ in range(3))
        self.reward = tiny_models.multiply_out(copy.deepcopy(base), folders.rm)
        self.reward_head = load_file(folders.rm / "head.safetensors")["weight"][0]
        # The adapter in training starts where the trainer's does; its random draw is not what is compared here.
        self.lora = {n: p.detach().clone() for n, p in trainer.trained.items() if not n.startswith("value_head")}
        self.scale = 6 / 2 if resumed else 5 / 2
        self.value_weight, self.value_bias = torch.zeros(16), torch.zeros(1)
        self.kl_coef, self.mean, self.std, self.steps = self.config.kl_coef, 0.0, 1.0, 0
        self.trained = [*self.lora.values(), self.value_weight, self.value_bias]
        for p in self.trained:
            p.requires_grad_(True)
        self.first_moment = [torch.zeros_like(p) for p in self.trained]
        self.second_moment = [torch.zeros_like(p) for p in self.trained]

    def weights(self, model):
        """The full model's weights with the adapter in training multiplied out into them."""
        weights = dict(model.named_parameters())
        for name, a in self.lora.items():
            if ".lora_A." in name:
                layer = name.removeprefix("base_model.model.").partition(".lora_A.")[0] + ".weight"
                weights[layer] = weights[layer] + self.scale * self.lora[name.replace("lora_A", "lora_B")] @ a
        return weights

    def run(self, model, ids, weights=None):
        """Logits [T, V] and last hidden states [T, H] of one unpadded row."""
        arguments = {"input_ids": torch.tensor([ids]), "output_hidden_states": True, "use_cache": False}
        found = functional_call(model, weights or dict(model.named_parameters()), (), arguments)
        return found.logits[0], found.hidden_states[-1][0]

    def log_probs(self, model, prompt, response, weights=None):
        logits, _ = self.run(model, [*prompt, *response], weights)
        each = [
            torch.log_softmax(logits[len(prompt) + t - 1] / self.config.temperature, -1) for t in range(len(response))
        ]
        entropy = [-(p.exp() * p).sum() for p in each]
        return torch.stack([p[token] for p, token in zip(each, response, strict=True)]), torch.stack(entropy)

    def values(self, prompt, response, weights):
        _, states = self.run(self.value, [*prompt, *response], weights)
        return states[len(prompt) - 1 : -1] @ self.value_weight + self.value_bias

    def update(self, number):
        k = self.config
        limit = random.Random(f"{SEED}/length/{number}").randint(k.min_response_length, k.max_response_length)
        rows = []
        with torch.no_grad():
            weights, value_weights = self.weights(self.policy), self.weights(self.value)
            if number == 0:
                self.normalize(weights)
            for episode in range(number * k.batch_size, (number + 1) * k.batch_size):
                epoch, position = divmod(episode, len(self.prompts))
                order = list(range(len(self.prompts)))
                random.Random(f"{SEED}/prompts/{epoch}").shuffle(order)
                rows.append(self.rollout(self.prompts[order[position]], limit, f"episode/{episode}", weights))
            scores = [self.score(row) for row in rows]
            for row, score in zip(rows, scores, strict=True):
                self.judge(row, score, weights, value_weights)
        if k.whiten_rewards:
            self.divide_rewards(rows)
        for row in rows:
            self.estimate(row)
        every = [a for row in rows for a in row["advantages"]]
        mean = sum(every) / len(every)
        std = math.sqrt(sum((a - mean) ** 2 for a in every) / len(every) + 1e-8)
        for row in rows:
            row["advantages"] = [(a - mean) / std for a in row["advantages"]]

        logged = []
        share, warmup = 1.0, round(k.warmup_ratio * self.updates)
        if number < warmup:
            share = (number + 1) / warmup
        elif k.lr_scheduler_type == "cosine":
            share = 0.5 + 0.5 * math.cos(math.pi * (number - warmup) / (self.updates - warmup))
        for epoch in range(k.num_ppo_epochs):
            order = list(range(k.batch_size))
            random.Random(f"{SEED}/mini-batches/{number}/{epoch}").shuffle(order)
            size = k.batch_size // k.num_mini_batches
            for start in range(0, k.batch_size, size):
                logged.append(self.step([rows[i] for i in order[start : start + size]], k.learning_rate * share))
        log = {name: sum(entry[name] for entry in logged) / len(logged) for name in logged[0]}
        log["kl_coef"] = self.kl_coef
        log["score"] = sum(scores) / len(scores)
        log["reward"] = sum(sum(row["paid"]) for row in rows) / len(rows)
        log["kl"] = sum(sum(row["kl"]) for row in rows) / len(rows)
        log["entropy"] = sum(sum(row["entropy"]) for row in rows) / sum(len(row["response"]) for row in rows)
        if k.kl_target is not None:
            error = max(-0.2, min(0.2, log["kl"] / k.kl_target - 1))
            self.kl_coef *= 1 + error * k.batch_size / k.kl_horizon
        return rows, log

    def normalize(self, weights):
        """The reward's zero and scale, from answers that are sampled for that alone."""
        k, order = self.config, list(range(len(self.prompts)))
        if k.normalize_reward != "none":
            scores = []
            for i in range(k.normalization_samples):
                if i % len(order) == 0:
                    order = list(range(len(self.prompts)))
                    random.Random(f"{SEED}/normalization/prompts/{i // len(order)}").shuffle(order)
                prompt = self.prompts[order[i % len(order)]]
                scores.append(self.score(self.rollout(prompt, k.max_response_length, f"normalization/{i}", weights)))
            self.mean = sum(scores) / len(scores)
            if k.normalize_reward == "standardize":
                self.std = math.sqrt(sum((s - self.mean) ** 2 for s in scores) / len(scores))
        if k.value_head_init == "reward":
            self.value_weight.copy_(self.reward_head / self.std)
            self.value_bias.fill_(-self.mean / self.std)

    def score(self, row):
        return float(self.run(self.reward, row["prompt"] + row["response"])[1][-1] @ self.reward_head)

    def rollout(self, prompt, limit, key, weights):
        uniform, response = random.Random(f"{SEED}/{key}"), []
        while len(response) < limit and not (response and response[-1] in EOS):
            logits, _ = self.run(self.policy, prompt + response, weights)
            probabilities = torch.softmax(logits[-1] / self.config.temperature, -1).tolist()
            rest = uniform.random() * sum(probabilities)
            token = 0
            while rest >= probabilities[token]:
                rest -= probabilities[token]
                token += 1
            response.append(token)
        return {"prompt": prompt, "response": response, "ended": response[-1] in EOS}

    def judge(self, row, score, weights, value_weights):
        k, prompt, response = self.config, row["prompt"], row["response"]
        row["log_probs"], row["entropy"] = (x.tolist() for x in self.log_probs(self.policy, prompt, response, weights))
        reference = self.log_probs(self.reference, prompt, response)[0].tolist()
        row["values"] = self.values(prompt, response, value_weights).tolist()
        row["kl"] = [new - old for new, old in zip(row["log_probs"], reference, strict=True)]
        final = (score - self.mean) / self.std
        if k.reward_clip is not None:
            final = max(-k.reward_clip, min(k.reward_clip, final))
        if not row["ended"]:
            final -= k.missing_eos_penalty
        row["paid"] = [-self.kl_coef * kl for kl in row["kl"]]
        row["paid"][-1] += final
        row["rewards"] = list(row["paid"])

    def divide_rewards(self, rows):
        every = [r for row in rows for r in row["rewards"]]
        mean = sum(every) / len(every)
        std = math.sqrt(sum((r - mean) ** 2 for r in every) / len(every) + 1e-8)
        for row in rows:
            row["rewards"] = [(r - mean) / std + mean for r in row["rewards"]]

    def estimate(self, row):
        """A_t = Σ_l (γλ)^l δ_{t+l}, summed as it is written."""
        k, rewards, values = self.config, row["rewards"], row["values"]
        deltas = [r + k.gamma * after - v for r, v, after in zip(rewards, values, [*values[1:], 0.0], strict=True)]
        row["advantages"] = [
            sum((k.gamma * k.lam) ** (later - t) * deltas[later] for later in range(t, len(deltas)))
            for t in range(len(deltas))
        ]
        row["returns"] = [a + v for a, v in zip(row["advantages"], values, strict=True)]

    def step(self, rows, learning_rate):
        k = self.config
        count = sum(len(row["response"]) for row in rows)
        policy_loss = value_loss = torch.zeros(())
        clipped = ratios = approx_kl = 0.0
        for row in rows:
            log_probs, _ = self.log_probs(self.policy, row["prompt"], row["response"], self.weights(self.policy))
            values = self.values(row["prompt"], row["response"], self.weights(self.value))
            for t in range(len(row["response"])):
                ratio = torch.exp(log_probs[t] - row["log_probs"][t])
                plain = ratio * row["advantages"][t]
                held = min(max(ratio, torch.tensor(1 - k.cliprange)), torch.tensor(1 + k.cliprange))
                bounded = held * row["advantages"][t]
                policy_loss = policy_loss - min(plain, bounded)
                clipped += float(bounded < plain)
                ratios += ratio.item()
                approx_kl += ratio.item() - 1 - math.log(ratio.item())
                old = row["values"][t]
                near = old + torch.clamp(values[t] - old, -k.cliprange_value, k.cliprange_value)
                target = row["returns"][t]
                value_loss = value_loss + max((values[t] - target) ** 2, (near - target) ** 2) / 2
        policy_loss, value_loss = policy_loss / count, value_loss / count
        gradients = torch.autograd.grad(policy_loss + k.vf_coef * value_loss, self.trained)
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
        self.steps += 1
        with torch.no_grad():
            for p, g, m, v in zip(self.trained, gradients, self.first_moment, self.second_moment, strict=True):
                g = g * min(1.0, k.max_grad_norm / norm)
                m.copy_(0.9 * m + 0.1 * g)
                v.copy_(0.999 * v + 0.001 * g**2)
                p -= learning_rate * (m / (1 - 0.9**self.steps)) / ((v / (1 - 0.999**self.steps)).sqrt() + 1e-8)
        return {
            "policy_loss": policy_loss.item(), "value_loss": value_loss.item(),
            "loss": (policy_loss + k.vf_coef * value_loss).item(), "clip_fraction": clipped / count,
            "ratio": ratios / count, "approx_kl": approx_kl / count, "grad_norm": norm,
            "learning_rate": learning_rate,
        }  # fmt: skip
