"""The next token from hand-made logits: each filter of `Decoding` through the whole list of processors."""

import math

import pytest
import torch

from stages.generation import generate
from stages.generation.generate import Decoding

PLAIN = Decoding(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0)
SHARES = [0.5, 0.3, 0.2]
ALMOST_ONE = 1 - 2**-53  # the largest that random.random() gives


def scores(decoding, logits, uniforms, said=(), prompt=(0,)):
    """What greedy decoding gets to see, [rows, V], after the prompt and the tokens that were said since.

    Args:
        logits: [rows, V].
        uniforms: [rows, positions].
    """
    found = torch.tensor(logits)
    ids = torch.tensor([[*prompt, *said]] * len(found))
    for processor in generate._processors(decoding, torch.tensor(uniforms, dtype=torch.float64), len(prompt)):
        found = processor(ids, found)
    return found


def token(uniform, shares=SHARES, **changes):
    logits = [[math.log(share) for share in shares]]
    return scores(PLAIN.replace(**changes), logits, [[uniform]]).argmax(-1).item()


@pytest.mark.parametrize(
    ("uniform", "expected"), [(0.0, 0), (0.49, 0), (0.51, 1), (0.79, 1), (0.81, 2), (ALMOST_ONE, 2)]
)
def test_a_uniform_number_picks_by_cumulative_probability(uniform, expected):
    assert token(uniform) == expected


def test_top_p_drops_the_tail():
    assert token(0.99) == 2
    assert token(0.99, top_p=0.7) == 1
    assert token(ALMOST_ONE, top_p=0.7) == 1
    assert token(0.99, top_p=0.81) == 2
    # of .5 and .3 alone, the first holds .625
    assert token(0.62, top_p=0.7) == 0 and token(0.63, top_p=0.7) == 1


def test_top_k_keeps_the_likeliest():
    assert token(0.99, top_k=1) == 0 and token(0.99, top_k=2) == 1 and token(0.99, top_k=3) == 2
    assert token(0.0, shares=[0.2, 0.3, 0.5], top_k=1) == 2, "what was filtered is not picked by the smallest number"


def test_temperature_sharpens_and_flattens():
    # squares .25, .09, .04 of .38: the first holds .658; roots .707, .548, .447 of 1.702: .415
    assert token(0.6) == 1 and token(0.6, temperature=0.5) == 0
    assert token(0.45) == 0 and token(0.45, temperature=2.0) == 1


def test_temperature_comes_before_top_p():
    # sharpened to .658, .237, .105, the first alone holds .65; as it was, it would take two
    assert token(0.99, top_p=0.65) == 1
    assert token(0.99, top_p=0.65, temperature=0.5) == 0


def test_repetition_penalty_lowers_what_the_answer_said_and_not_the_prompt():
    greedy = PLAIN.replace(do_sample=False, repetition_penalty=2.0)
    logits = [[2.0, 1.0, 2.2, -1.0, -1.0]]
    after = scores(greedy, logits, [[0.5] * 3], prompt=(0, 4), said=(2, 3))
    torch.testing.assert_close(after, torch.tensor([[2.0, 1.0, 1.1, -2.0, -1.0]]))
    assert after.argmax(-1).item() == 0
    assert scores(greedy, logits, [[0.5] * 3], prompt=(0, 2)).tolist() == torch.tensor(logits).tolist()


def test_repetition_penalty_changes_what_is_drawn():
    # 4 and 4 share alike; once 0 was said it is 2, and token 1 holds .88
    said = {"prompt": (1,), "said": (0,)}
    assert scores(PLAIN, [[4.0, 4.0]], [[0.0, 0.3]], **said).argmax(-1).item() == 0
    penalty = PLAIN.replace(repetition_penalty=2.0)
    assert scores(penalty, [[4.0, 4.0]], [[0.0, 0.3]], **said).argmax(-1).item() == 1


def test_each_row_and_position_has_its_own_number():
    logits = [[math.log(share) for share in SHARES]] * 2
    uniforms = [[0.1, 0.6], [0.9, 0.2]]
    assert scores(PLAIN, logits, uniforms, prompt=(1, 2, 0)).argmax(-1).tolist() == [0, 2]
    assert scores(PLAIN, logits, uniforms, prompt=(1, 2, 0), said=(1,)).argmax(-1).tolist() == [1, 0]


def test_one_token_alone_is_left():
    left = scores(PLAIN, [[math.log(share) for share in SHARES]], [[0.6]])
    assert left.tolist() == [[-math.inf, 0.0, -math.inf]]


def test_without_sampling_the_likeliest_is_taken_whatever_else_is_set():
    for uniform in (0.0, 0.99):
        assert token(uniform, do_sample=False) == 0
        changes = {"do_sample": False, "temperature": 2.0, "top_k": 2, "top_p": 0.3}
        assert token(uniform, shares=[0.2, 0.5, 0.3], **changes) == 1


def test_the_same_key_gives_the_same_numbers():
    assert generate._uniforms("a", 3) == generate._uniforms("a", 5)[:3] != generate._uniforms("b", 3)
