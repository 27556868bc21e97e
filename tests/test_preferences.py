"""Preference records → pairs: every better answer against every worse one, and a split that leaks nothing."""

import pytest

from stages.importing.preferences import split, to_pairs
from stages.runtime.errors import UserError
from stages.text.records import Pair

RECORD = {"instruction": "问", "input": "题", "output": ["好", "中", "中", "差"], "history": [["一", "二"]]}


def test_every_better_answer_meets_every_worse_one():
    pairs, counts = to_pairs(RECORD, "here")
    expected = [("好", "中"), ("好", "中"), ("好", "差"), ("中", "差"), ("中", "差")]
    assert pairs == [Pair([["一", "二"]], "问题", *both) for both in expected]
    assert counts == {"records": 1, "pairs": 5, "dropped_ties": 1}


def test_a_record_without_history_or_with_ties_alone():
    record = {"instruction": "问", "input": "", "output": ["同", "同"]}
    assert to_pairs(record, "here") == ([], {"records": 1, "pairs": 0, "dropped_ties": 1})
    assert to_pairs(record | {"output": ["a", "b"]}, "here")[0] == [Pair([], "问", "a", "b")]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"instruction": None}, "`instruction` must be a text"),
        ({"input": 3}, "`input` must be a text"),
        ({"output": ["one"]}, "`output` must be a list of at least two texts"),
        ({"output": ["one", 2]}, "`output` must be a list of at least two texts"),
        ({"history": [["q"]]}, "`history` must be a list of"),
        ({"history": "q"}, "`history` must be a list of"),
    ],
)
def test_what_is_no_record_is_named(change, said):
    with pytest.raises(UserError, match=f"here: {said}"):
        to_pairs(RECORD | change, "here")
    with pytest.raises(UserError, match="here: a preference record must be an object, not list"):
        to_pairs([], "here")


def test_all_pairs_of_a_question_stay_on_one_side():
    groups = [
        to_pairs({"instruction": f"q{i % 30}", "input": "", "output": [f"{i}a", f"{i}b", f"{i}c"]}, "")[0]
        for i in range(40)
    ] + [[]]
    train, held_out = split(groups, 0.2, seed=1)
    assert len(train) + len(held_out) == 120
    questions = {pair.instruction for pair in held_out}
    assert len(questions) == 6 and not questions & {pair.instruction for pair in train}
    assert [p for g in groups for p in g if p.instruction in questions] == held_out, "order is kept"
    assert split(groups, 0.2, seed=1) == (train, held_out)
    assert split(groups, 0.2, seed=2) != (train, held_out)


@pytest.mark.parametrize(("count", "held_out"), [(3, 2), (12, 2), (13, 3), (17, 3), (18, 4)])
def test_the_share_is_rounded_to_the_nearest_count_and_at_least_two(count, held_out):
    groups = [[Pair([], f"q{i}", "a", "b")] for i in range(count)]
    train, validate = split(groups, 0.2, seed=1)
    assert (len(train), len(validate)) == (count - held_out, held_out)
