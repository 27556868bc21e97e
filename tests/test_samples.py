"""Training samples as rows: the rounds of a dialogue share one, and nothing else does."""

import torch

from stages.text.encoding import Encoded
from stages.training import samples
from stages.training.config import TrainingConfig
from stages.training.length_grouping import by_length, in_training_order, padding_share
from stages.training.samples import EncodedSample


def sample(prompt, answer):
    return EncodedSample(Encoded(prompt), Encoded(answer))


def members(*of):
    return [row.members for row in samples.rows_of(of)]


FIRST = sample([5, 6], [7, 3])
SECOND = sample([5, 6, 7, 3, 8], [9, 3])
THIRD = sample([5, 6, 7, 3, 8, 9, 3, 4], [3])
OTHER = sample([5, 6], [8, 3])  # the same question, answered otherwise
BRANCH = sample([5, 6, 7, 3, 4], [6, 3])  # goes on from the first as the second does


def test_a_sample_that_goes_on_from_another_shares_its_row():
    assert members(THIRD, OTHER, FIRST, SECOND) == [[1], [2, 3, 0]]
    assert members(THIRD, FIRST) == [[1, 0]], "what is not there is no gap"
    assert members(FIRST, FIRST) == [[0], [1]]
    assert members(sample([5], [6, 7]), sample([5, 6], [7, 3])) == [[0], [1]], "a prompt, not an answer, goes on"


def test_what_ends_an_answer_need_not_end_it_as_a_past_round():
    following = sample([5, 6, 7, 1, 8], [9, 3])  # 1 where the first sample has its EOS, 3
    batch = samples.collate([FIRST, following], pad=0)
    assert batch["ids"].tolist() == [[5, 6, 7, 1, 8, 9, 3]]
    assert batch["sample"].tolist() == [[-1, 0, 0, -1, 1, 1, -1]]
    assert batch["labels"].tolist() == [[0, 7, 3, 0, 9, 3, 0]]


def test_no_position_predicts_for_two_samples():
    assert members(sample([5, 6], [3]), FIRST) == [[0], [1]]


def test_a_branch_is_computed_twice():
    assert members(FIRST, SECOND, BRANCH, THIRD) in ([[0, 2], [1, 3]], [[0, 1, 3], [2]])


def test_each_answers_tokens_are_told_apart():
    batch = samples.collate([SECOND, OTHER, FIRST], pad=0)
    assert batch["ids"].tolist() == [[5, 6, 8, 3, 0, 0, 0], [5, 6, 7, 3, 8, 9, 3]]
    # one before its token, as it is predicted there
    assert batch["sample"].tolist() == [[-1, 1, 1, -1, -1, -1, -1], [-1, 2, 2, -1, 0, 0, -1]]
    assert batch["labels"][batch["sample"] >= 0].tolist() == [8, 3, 7, 3, 9, 3]
    assert batch["tokens"].tolist() == [2, 2, 2]
    assert torch.bincount(batch["sample"][batch["sample"] >= 0]).equal(batch["tokens"])


def test_padding_share_by_hand():
    # a row of 7 tokens beside one of 4; then OTHER alone
    assert padding_share([SECOND, FIRST, OTHER, OTHER], samples.rows_of, 3) == round(1 - 15 / 18, 4)


def test_a_dialogue_stays_together_in_training_and_evaluation():
    dialogues = [[sample([n], [3]), sample([n, 3, 1], [2, 3]), sample([n, 3, 1, 2, 3, n], [3])] for n in range(10, 50)]
    mixed = [dialogue[turn] for turn in (2, 0, 1) for dialogue in dialogues]
    config = TrainingConfig(per_device_train_batch_size=12, num_train_epochs=2)
    trained = in_training_order(mixed, samples.rows_of, config, seed=1)
    assert sorted(trained) == sorted(mixed * 2)
    for order in (trained, by_length(mixed, samples.rows_of)):
        assert all(order[i : i + 3] in dialogues for i in range(0, len(order), 3))
