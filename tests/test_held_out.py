"""What is held out is apart from what trains, and what is reported from what chose the checkpoint."""

import pytest

from stages.runtime.errors import UserError
from stages.text import held_out, records


def test_no_dialogue_is_on_both_sides_of_sfts_split() -> None:
    dialogues = [(file, sample // 4) for file, count in ((0, 200), (1, 40)) for sample in range(count)]
    dev, train = held_out.split(dialogues, dev_ratio=0.05, seed=1)
    assert sorted([*dev, *train]) == list(range(240))
    assert not {dialogues[i] for i in dev} & {dialogues[i] for i in train}
    assert len(dev) == 12  # 5 % of 240, and dialogues of 4
    assert held_out.split(dialogues, 0.05, seed=1) == (dev, train) != held_out.split(dialogues, 0.05, seed=2)


def test_samples_without_a_dialogue_are_split_one_by_one() -> None:
    dev, train = held_out.split([(0, sample) for sample in range(30)], dev_ratio=0.1, seed=1)
    assert len(dev) == 3 and len(train) == 27


def pairs(*questions: str) -> list[records.Pair]:
    return [records.Pair(history=[], instruction=q, chosen=f"{n}", rejected="") for n, q in enumerate(questions)]


def test_all_pairs_of_a_question_are_in_one_part() -> None:
    choosing, reported = held_out.parts(pairs("a", "b", "a", "c", "b", "d"))
    assert [(pair.instruction, pair.chosen) for pair in choosing] == [("a", "0"), ("a", "2"), ("c", "3")]
    assert [(pair.instruction, pair.chosen) for pair in reported] == [("b", "1"), ("b", "4"), ("d", "5")]


def test_one_question_alone_is_refused() -> None:
    with pytest.raises(UserError, match=r"about one question; raise data\.preferences_validate_ratio"):
        held_out.parts(pairs("a", "a"))
