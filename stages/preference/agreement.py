"""How a trained reward model scores held-out pairs, and how often it prefers the chosen answer."""

from collections.abc import Sequence
from typing import Any

from stages.models import reward
from stages.preference.pairs import EncodedPair, questions
from stages.text import records

TOKENS_PER_BATCH = 2048
"""Tokens of a forward pass, padding included."""


def score_pairs(
    model: Any, encoded: Sequence[EncodedPair], pairs: Sequence[records.Pair], pad: int
) -> list[dict[str, Any]]:
    """Scores and character lengths of both answers of each pair, and the number of its question."""
    model.eval()
    asked, places = questions(encoded)
    prompts = [question.prompt for question in asked for _ in question.answers]
    answers = [answer for question in asked for answer in question.answers]
    owners = [number for number, question in enumerate(asked) for _ in question.answers]
    scores = reward.score_by_prompt(model, reward.trained_head(model), prompts, answers, pad, TOKENS_PER_BATCH)
    return [
        {
            "question": owners[chosen],
            "chosen": round(scores[chosen], 4),
            "rejected": round(scores[rejected], 4),
            "chosen_length": len(pair.chosen),
            "rejected_length": len(pair.rejected),
        }
        for pair, (chosen, rejected) in zip(pairs, places, strict=True)
    ]


def summary(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Accuracy and mean margin over what `score_pairs` gives."""
    margins = [row["chosen"] - row["rejected"] for row in scores]
    shorter = [m for m, row in zip(margins, scores, strict=True) if row["chosen_length"] <= row["rejected_length"]]
    return {
        "eval_accuracy": round(sum(m > 0 for m in margins) / len(margins), 4),
        "eval_margin": round(sum(margins) / len(margins), 4),
        # A model that only counts characters is right on the long ones and wrong on these.
        "eval_accuracy_chosen_not_longer": round(sum(m > 0 for m in shorter) / max(1, len(shorter)), 4),
        "pairs_chosen_not_longer": len(shorter),
    }
