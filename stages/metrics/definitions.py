"""Every metric of the answers, declared once: what it is called, how it is measured and how it is shown.

`evaluate` measures what has a function here; the report, `results`, the plots and the model card show what is listed.
A new metric is one function and one entry of `METRICS`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from stages.metrics import facts, text_metrics
from stages.metrics.answer import Answer

MODELS = ("base", "sft", "ppo")
BASELINE = "retrieval"
"""The answer of the nearest training question: what a model has to beat."""
CONTRASTS = (("base", "sft"), ("sft", "ppo"), ("base", "ppo"))


@dataclass(frozen=True)
class Metric:
    """A number of a model: the mean over its answers or, for `distinct-2`, a number of all answers together."""

    name: str
    en: str
    zh: str
    better: int
    """+1: more is better, -1: less is better, 0: neither."""
    digits: int
    of: Callable[[Answer], float | None] | None = None
    """Measures one answer; None where nothing is known of it. Without a function the number has another source: the
    reward model, or all answers together."""
    key: str = ""
    """Of the number in a row of `evaluate`; the name unless given."""
    scale: float = 1
    """The shown value is the mean times this."""
    whole_set: bool = False
    """A number of all answers together."""
    optional: bool = False
    """Known of some data only: where no answer has it, it is not shown."""
    bounded: bool = False
    """The shown value lies between 0 and 100."""
    margin: float | None = None
    """A change for the worse below this many shown units does no harm; None: PPO is not judged by this metric."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", self.key or self.name)


METRICS = (
    Metric("rouge-1", "ROUGE-1", "ROUGE-1", +1, 2, text_metrics.rouge_1, bounded=True, margin=1),
    Metric("rouge-2", "ROUGE-2", "ROUGE-2", +1, 2, text_metrics.rouge_2, bounded=True),
    Metric("rouge-l", "ROUGE-L", "ROUGE-L", +1, 2, text_metrics.rouge_l, bounded=True, margin=1),
    Metric("bleu-4", "BLEU-4", "BLEU-4", +1, 2, text_metrics.bleu, bounded=True),
    Metric("facts_named", "Facts named, %", "说出的事实（%）", +1, 1, facts.named, scale=100, optional=True,
           bounded=True, margin=2),
    Metric("facts_contradicted", "Facts contradicted, %", "与事实矛盾（%）", -1, 1, facts.contradicted, scale=100,
           optional=True, bounded=True, margin=2),
    Metric("reward", "Reward", "奖励", +1, 2),
    Metric("response_length", "Length, characters", "长度（字符）", 0, 1, lambda answer: len(answer.text)),
    Metric("response_tokens", "Length, tokens", "长度（词元）", 0, 1, lambda answer: answer.tokens),
    Metric("eos_rate", "Ended by itself, %", "自行结束（%）", +1, 1, lambda answer: answer.ended, key="eos", scale=100,
           bounded=True, margin=5),
    Metric("repetition", "Repeats itself, %", "自我重复（%）", -1, 1, text_metrics.repetition, scale=100, bounded=True,
           margin=1),
    Metric("distinct-2", "Distinct-2", "Distinct-2（不同二元组）", +1, 2, whole_set=True, bounded=True, margin=2),
)  # fmt: skip
BY_NAME = {metric.name: metric for metric in METRICS}


def measure(answer: Answer) -> dict[str, float]:
    """The numbers of one answer, by the metric's key; one that is not known of it is left out."""
    found = {metric.key: metric.of(answer) for metric in METRICS if metric.of}
    return {key: value for key, value in found.items() if value is not None}
