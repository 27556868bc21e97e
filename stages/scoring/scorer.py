"""Texts → rewards, and how far the policy is from the SFT model on them."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.metrics import probes
from stages.metrics.probes import Text
from stages.models import reward, stack
from stages.runtime import params
from stages.text import encoding, records


class EvaluateConfig(params.Section):
    max_source_length: params.Tokens = 256
    """Tokens of history and question; the oldest turns are dropped first, and the question is kept."""
    max_target_length: params.Tokens = 256
    """Tokens of the answer, its EOS included."""
    tokens_per_batch: params.Tokens = 2048
    """Tokens of one pass through the reward model, padding included; answers of like length go together."""


class Scorer:
    """A stack with a reward adapter and its head, and the limits of its inputs."""

    def __init__(self, model: Any, head: Any, tokenizer: Any, config: EvaluateConfig) -> None:
        self.model, self.head, self.tokenizer, self.config = model, head, tokenizer, config

    def prompt(self, question: records.Sample | records.Pair) -> list[int]:
        limit = self.config.max_source_length
        return encoding.encode_prompt(self.tokenizer, question.history, question.instruction, limit, "evaluate").ids

    def answer(self, text: Text) -> list[int]:
        """Closed by EOS only where the model itself closed it, as PPO saw it."""
        ids = encoding.encode_answer(self.tokenizer, text.text, self.config.max_target_length).ids
        return ids if text.ended or len(ids) == 1 else ids[:-1]

    def rewards(self, prompts: Sequence[list[int]], texts: Sequence[Text]) -> list[float]:
        pad, size = self.tokenizer.pad_token_id, self.config.tokens_per_batch
        return reward.score_by_prompt(self.model, self.head, prompts, [self.answer(text) for text in texts], pad, size)

    def of_answers(
        self, samples: Sequence[records.Sample], texts: Mapping[str, Sequence[Text]]
    ) -> dict[str, list[float]]:
        """Of several answers to each sample: name → a reward per sample."""
        prompts = [self.prompt(sample) for sample in samples]
        found = self.rewards(prompts * len(texts), [text for each in texts.values() for text in each])
        return {name: found[n * len(prompts) : (n + 1) * len(prompts)] for n, name in enumerate(texts)}

    def of_pairs(self, pairs: Sequence[records.Pair]) -> list[dict[str, Any]]:
        """Each pair's scores under its own question and under another one, and its chosen answer's rival from there.

        All pairs of a question get the same other one, whose pairs their rivals are from in turn. A row's `question`
        numbers the questions: pairs of one question are not independent.
        """
        names: dict[str, list[int]] = {}
        for at, pair in enumerate(pairs):
            names.setdefault(pair.instruction, []).append(at)
        members = list(names.values())
        questions, other = [0] * len(pairs), [0] * len(pairs)
        for question, opposite in enumerate(probes.others(range(len(members)))):
            for turn, at in enumerate(members[question]):
                questions[at], other[at] = question, members[opposite][turn % len(members[opposite])]
        own_prompts = [self.prompt(pair) for pair in pairs]
        other_prompts = [own_prompts[at] for at in other]
        chosen, rejected = [Text(p.chosen, True) for p in pairs], [Text(p.rejected, True) for p in pairs]
        asked = {
            "chosen": (own_prompts, chosen),
            "rejected": (own_prompts, rejected),
            "chosen_other_question": (other_prompts, chosen),
            "rejected_other_question": (other_prompts, rejected),
            "chosen_of_other": (own_prompts, [chosen[at] for at in other]),
        }
        found = self.rewards(
            [prompt for prompts, _ in asked.values() for prompt in prompts],
            [text for _, texts in asked.values() for text in texts],
        )
        columns = {name: found[n * len(pairs) : (n + 1) * len(pairs)] for n, name in enumerate(asked)}
        return [
            {"question": question, "chosen_length": len(pair.chosen), "rejected_length": len(pair.rejected)}
            | {name: round(values[at], 4) for name, values in columns.items()}
            for at, (question, pair) in enumerate(zip(questions, pairs, strict=True))
        ]

    def kl(
        self, samples: Sequence[records.Sample], texts: Sequence[Text], policy: list[str], reference: list[str]
    ) -> list[float]:
        """KL divergence of each answer, in nats: Σ over its tokens of KL(policy ‖ reference) over the vocabulary.

        Exact at each position; the positions are those of the given answers.

        Args:
            policy, reference: the adapters that make up each.
        """
        import torch

        from stages.models import forward

        prompts, ids = [self.prompt(sample) for sample in samples], [self.answer(text) for text in texts]
        pad, device = self.tokenizer.pad_token_id, self.head.weight.device
        plan = forward.plan(forward.lengths(prompts, ids), self.config.tokens_per_batch)
        head = forward.causal_lm(self.model).get_output_embeddings()
        found = [0.0] * len(ids)
        with torch.no_grad():
            for rows, batch in forward.batches(prompts, ids, plan, pad, device):
                states = []
                for adapters in (policy, reference):
                    with stack.active(self.model, adapters):
                        states.append(forward.hidden_states(self.model, batch))
                for at, row in enumerate(rows):  # one answer's logits at a time: a large vocabulary fills the memory
                    first = len(prompts[row]) - 1  # the position that predicts the answer's first token
                    span = slice(first, first + len(ids[row]))
                    ours, theirs = (torch.log_softmax(forward.logits(head, side[at, span]), -1) for side in states)
                    found[row] = float((ours.exp() * (ours - theirs)).sum())
        return found
