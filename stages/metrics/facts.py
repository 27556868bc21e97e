"""What is known of a question → whether the answer says it."""
from stages.metrics.answer import Answer


def named(answer: Answer) -> float | None:
    return None


def contradicted(answer: Answer) -> float | None:
    return None
