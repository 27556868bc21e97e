"""Training samples as token ids: the rounds of a dialogue share a row, each computed once.

A dialogue of n rounds gives n samples, and each begins with what the ones before it say. Where all that one sample
reads is how another's prompt begins, a causal model computes the same for both; so they share a row, and the loss of
each answer is what it would be in a row of its own. A prompt format that writes a past round differently (as that of
ChatGLM-6B, or of Qwen3 with thinking off) gives no such beginnings, and every sample its own row.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from stages.text.encoding import Encoded
from stages.training.length_grouping import Row


class EncodedSample(NamedTuple):
    prompt: Encoded
    answer: Encoded

    @property
    def ids(self) -> list[int]:
        return self.prompt.ids + self.answer.ids

    @property
    def read(self) -> list[int]:
        """All but the last token, which is predicted and not read: whatever follows an answer may stand there."""
        return self.ids[:-1]


def collate(samples: Sequence[EncodedSample], pad: int) -> dict[str, Any]:
    """A batch of b samples in B rows.

    Returns:
        ids: [B, T], padded on the right. sample: [B, T], whose answer a position predicts; -1 for none. labels: [B, T],
        the token that it predicts. tokens: [b], those of each answer.
    """
    import torch

    rows = rows_of(samples)
    longest = max(row.tokens for row in rows)
    ids = torch.full((len(rows), longest), pad)
    sample, labels = torch.full((len(rows), longest), -1), torch.full((len(rows), longest), pad)
    for number, row in enumerate(rows):
        whole = samples[row.members[-1]].ids
        ids[number, : len(whole)] = torch.tensor(whole)
        for i in row.members:
            start, answer = len(samples[i].prompt.ids) - 1, samples[i].answer.ids
            sample[number, start : start + len(answer)] = i
            labels[number, start : start + len(answer)] = torch.tensor(answer)
    tokens = torch.tensor([len(each.answer.ids) for each in samples])
    return {"ids": ids, "sample": sample, "labels": labels, "tokens": tokens}


def rows_of(samples: Sequence[EncodedSample]) -> list[Row]:
    """The samples that share a row, each the beginning of the next one's prompt."""
    read = [sample.read for sample in samples]
    rows: dict[int, list[int]] = {}
    """By the last sample of each."""
    begun: list[int] = []
    """The beginnings of the sample at hand, the longest last."""
    for i in sorted(range(len(samples)), key=read.__getitem__):  # a beginning comes before what goes on from it
        # [:-1], so that no position predicts for two samples
        while begun and samples[i].prompt.ids[:-1][: len(read[begun[-1]])] != read[begun[-1]]:
            begun.pop()
        row = rows.pop(begun[-1], []) if begun else []
        rows[i] = [*row, i]
        begun.append(i)
    return [Row(members, len(samples[members[-1]].ids)) for members in sorted(rows.values())]
