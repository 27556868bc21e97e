"""Pairs as questions: each answer once, in an order that keeps a question together."""

from collections import Counter

from stages.preference import pairs
from stages.preference.config import RmConfig
from stages.preference.pairs import EncodedPair
from stages.training.length_grouping import by_length, in_training_order, padding_share

A = [EncodedPair([5, 6], [1], [2, 2]), EncodedPair([5, 6], [1], [3]), EncodedPair([5, 6], [2, 2], [3])]
B = [EncodedPair([7], [1], [4, 4, 4])]


def test_questions_hold_each_answer_once():
    found, places = pairs.questions([A[0], *B, A[1], A[2]])
    assert found == [([5, 6], [[1], [2, 2], [3]]), ([7], [[1], [4, 4, 4]])]
    assert places == [(0, 1), (3, 4), (0, 2), (1, 2)]
    assert [question.tokens for question in found] == [6, 5]


def test_two_answers_that_were_cut_to_the_same_tokens():
    assert pairs.questions([EncodedPair([5], [1, 2], [1, 2])]) == ([([5], [[1, 2]])], [(0, 0)])


def test_padding_share_by_hand():
    # a row of 6 tokens beside one of 5; then, without B, a single row for two pairs
    assert padding_share([*A, *B], pairs.rows_of, 4) == round(1 - 11 / 12, 4)
    assert padding_share(A[:2], pairs.rows_of, 2) == 0.0


def test_a_question_stays_together_in_training_and_evaluation():
    encoded = [EncodedPair([n], [1] * (n % 7), [2] * (j + 1)) for n in range(60) for j in range(4)]
    mixed = encoded[::3] + encoded[1::3] + encoded[2::3]
    config = RmConfig(per_device_train_batch_size=8, num_train_epochs=2)
    trained = in_training_order(mixed, pairs.rows_of, config, seed=1)
    evaluated = by_length(mixed, pairs.rows_of)
    assert Counter(map(str, trained)) == Counter(map(str, encoded * 2))
    for order, epochs in ((trained, 2), (evaluated, 1)):
        runs = [order[i].prompt for i in range(len(order)) if i == 0 or order[i].prompt != order[i - 1].prompt]
        assert len(runs) <= 60 * epochs
    tokens = [pairs.questions(evaluated[i : i + 4])[0][0].tokens for i in range(0, 240, 4)]
    assert tokens == sorted(tokens)
