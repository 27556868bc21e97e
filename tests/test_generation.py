"""The next token from hand-made logits: each filter of `Decoding`, beside transformers' own."""

import math

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from stages.generation import generate, loop, sampling, steps, transformers_generate
from stages.generation.decoding import PLAIN
from stages.runtime.errors import UserError

SHARES = [0.5, 0.3, 0.2]
ALMOST_ONE = 1 - 2**-53  # the largest that random.random() gives


def next_tokens(decoding, logits, uniforms, answer=()):
    """The next token of each row of logits [rows, V] after the answer's tokens so far, by the loop and by transformers.

    Args:
        uniforms: one per row.
    """
    logits, numbers = torch.tensor(logits), torch.tensor(uniforms, dtype=torch.float64)
    seen = None
    if decoding.repetition_penalty != 1:
        seen = torch.zeros(logits.shape, dtype=torch.bool)
        seen[:, list(answer)] = True
    found = sampling.next_tokens(logits, numbers, seen, decoding).tolist()
    ids, scores = torch.tensor([[0, *answer]] * len(logits)), logits
    at_position = torch.zeros(len(logits), len(answer) + 1, dtype=torch.float64)
    at_position[:, -1] = numbers
    for processor in transformers_generate.processors(decoding, at_position, prompt_length=1):
        scores = processor(ids, scores)
    assert found == scores.argmax(-1).tolist()
    return found


def token(uniform, shares=SHARES, **changes):
    (found,) = next_tokens(PLAIN.replace(**changes), [[math.log(share) for share in shares]], [uniform])
    return found


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


def test_repetition_penalty_lowers_the_answers_own_tokens():
    greedy = PLAIN.replace(do_sample=False, repetition_penalty=2.0)
    logits = [[2.0, 1.0, 2.2, -1.0, -1.0]]
    assert next_tokens(greedy, logits, [0.5]) == [2]
    assert next_tokens(greedy, logits, [0.5], answer=(2, 3)) == [0]  # 2.2 became 1.1
    assert next_tokens(greedy, [[-1.0, -1.5]], [0.5], answer=(0,)) == [1]  # −1 became −2


def test_repetition_penalty_changes_what_is_drawn():
    # 4 and 4 are equally likely; once 0 occurred it is 2, and token 1 holds .88
    assert next_tokens(PLAIN, [[4.0, 4.0]], [0.3], answer=(0,)) == [0]
    assert next_tokens(PLAIN.replace(repetition_penalty=2.0), [[4.0, 4.0]], [0.3], answer=(0,)) == [1]


def test_each_row_has_its_own_number():
    assert next_tokens(PLAIN, [[math.log(share) for share in SHARES]] * 3, [0.1, 0.9, 0.6]) == [0, 2, 1]


def test_an_impossible_token_is_never_drawn():
    scores = [[-math.inf, math.log(0.25), math.log(0.75), -math.inf]]
    for uniform, expected in ((0.0, 1), (0.2499, 1), (0.2501, 2), (ALMOST_ONE, 2)):
        assert next_tokens(PLAIN, scores, [uniform]) == [expected]


@pytest.mark.parametrize("flat", [False, True], ids=["few are likely", "many are likely"])
@pytest.mark.parametrize("top_k", [0, 20, 1000])
@pytest.mark.parametrize("top_p", [0.5, 0.95, 1.0])
def test_a_large_vocabulary_gives_what_the_full_sort_gives(flat, top_k, top_p):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(64, 1500, generator=generator) * (0.3 if flat else 3.0)
    uniforms = torch.rand(64, generator=generator, dtype=torch.float64).tolist()
    config = PLAIN.replace(top_k=top_k, top_p=top_p, temperature=0.8, repetition_penalty=1.3)
    found = next_tokens(config, logits.tolist(), uniforms, answer=(5, 700))
    assert len(set(found)) > 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sums_in_whole_numbers_are_the_sums(dtype):
    """On GPUs, where a floating-point sum has no fixed order."""
    probabilities = torch.softmax(torch.randn(8, 4000, generator=torch.Generator().manual_seed(1)) * 3, -1).to(dtype)
    found, expected = sampling.cumulated(probabilities, exact=True), probabilities.double().cumsum(-1)
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-7 if dtype == torch.float32 else 1e-12)
    turned = sampling.cumulated(probabilities.flip(-1), exact=True)[:, -1]
    assert torch.equal(turned, found[:, -1])


def test_without_sampling_the_likeliest_is_taken_whatever_else_is_set():
    for uniform in (0.0, 0.99):
        assert token(uniform, do_sample=False) == 0
        changes = {"do_sample": False, "temperature": 2.0, "top_k": 2, "top_p": 0.3}
        assert token(uniform, shares=[0.2, 0.5, 0.3], **changes) == 1


def test_the_same_key_gives_the_same_numbers():
    assert generate._uniforms("a", 3) == generate._uniforms("a", 5)[:3] != generate._uniforms("b", 3)


@pytest.fixture
def tiny_qwen3():
    torch.manual_seed(5)
    config = Qwen3Config(
        vocab_size=64, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=8, max_position_embeddings=64, initializer_range=1.0,
    )  # fmt: skip
    return Qwen3ForCausalLM(config).eval()


def answers(model, prompts, eos, most=12):
    keys = [str(i) for i in range(len(prompts))]
    return dict(generate.generate(model, prompts, keys, PLAIN, most, len(prompts), eos, 0))


def test_prompts_read_in_several_passes_are_answered_as_in_one(tiny_qwen3, monkeypatch):
    prompts = [[5 + i for i in range(length)] for length in (2, 9, 3, 8, 5)]
    expected = answers(tiny_qwen3, prompts, [63])
    monkeypatch.setitem(steps.PROMPT_TOKENS, "cpu", 17)
    assert steps.passes([9, 8, 5, 3, 2], 17) == [slice(0, 1), slice(1, 3), slice(3, 5)]
    found = answers(tiny_qwen3, prompts, [63])
    assert {row: answer.ids for row, answer in found.items()} == {row: answer.ids for row, answer in expected.items()}


def test_rows_that_ended_are_not_answered_on(tiny_qwen3):
    passes = []
    tiny_qwen3.model.register_forward_hook(lambda *_: passes.append(1))
    first = {answer.ids[0] for answer in answers(tiny_qwen3, [[7, 8, 9], [7, 8]], [63], most=1).values()}
    passes.clear()
    found = answers(tiny_qwen3, [[7, 8, 9], [7, 8]], sorted(first), most=50)
    assert all(len(answer.ids) == 1 and answer.ended for answer in found.values())
    assert len(passes) <= loop.CHECK


@pytest.mark.parametrize("answer", [loop.decode, transformers_generate.generate])
def test_logits_that_are_no_numbers_end_it(tiny_qwen3, answer):
    """Drawn from, they would give the last token of the vocabulary, or any."""
    with torch.no_grad():
        tiny_qwen3.model.norm.weight[0] = torch.nan
    ids = torch.tensor([[3, 4, 5]])
    uniforms = torch.full((1, 12), 0.5, dtype=torch.float64)
    arguments = (tiny_qwen3, ids, torch.ones_like(ids), uniforms, PLAIN, [0])
    with pytest.raises(UserError, match="logits are not numbers"):
        list(answer(*arguments) if answer is loop.decode else answer(*arguments, pad=0))
