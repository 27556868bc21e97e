"""Recorded passes, with plain calls in place of CUDA graphs: the same tokens, from places that stay."""

import random

import pytest
import tiny_models
import torch
from chatglm_fixture.tiny import build_tiny_chatglm

from stages.generation import graphs, loop
from stages.generation.decoding import PLAIN
from stages.generation.generate import generate, left_pad
from stages.models import base_model, chatglm, forward, stack
from stages.models.chatglm.modeling import ChatGLMForCausalLM

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
NEW = 40
NEVER = [10**6]


def recorded(run, calls):
    """As a graph: set up by other runs, then always into the same result."""
    calls.append(run)
    for _ in range(2):
        run()
    result = run().clone()
    return lambda: result.copy_(run())


@pytest.fixture(autouse=True)
def calls(monkeypatch):
    found = []
    graphs.Storage.known.clear()
    monkeypatch.setattr(graphs, "usable", lambda model, ids: True)
    monkeypatch.setattr(graphs, "record", lambda run: recorded(run, found))
    return found


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    folders = tiny_models.write(tmp_path_factory.mktemp("models"))
    return stack.load(base_model.read(folders.base).causal_lm(), [folders.sft, folders.rm])


@pytest.fixture(scope="module")
def glm(tmp_path_factory):
    chatglm.register()
    folder = build_tiny_chatglm(tmp_path_factory.mktemp("chatglm") / "tiny")
    return ChatGLMForCausalLM.from_pretrained(folder).eval()


def prompts(model, count):
    draw = random.Random(count)
    config = model.config.get_text_config()
    close = [config.gmask_token_id, config.bos_token_id] if config.model_type == "chatglm" else []
    return [[draw.randrange(100, 250) for _ in range(1 + draw.randrange(30))] + close for _ in range(count)]


def answers(model, with_graphs, count=11, eos=range(40, 60), **changes):
    """Of prompts of several lengths, in two batches; with so many ends some rows end early and most do not."""
    asked = prompts(model, count)
    decoding, keys = PLAIN.replace(**changes), [f"key {n}" for n in range(count)]
    return dict(generate(model, asked, keys, decoding, NEW, 8, list(eos), 0, True, with_graphs))


def same(found, expected):
    assert {row: answer[:2] for row, answer in found.items()} == {row: answer[:2] for row, answer in expected.items()}
    for row, answer in found.items():
        assert answer.log_probs == pytest.approx(expected[row].log_probs, abs=1e-4)


@pytest.mark.parametrize("changes", [{}, {"do_sample": False}, {"top_p": 0.7, "repetition_penalty": 1.3}], ids=str)
@pytest.mark.parametrize("name", ["qwen", "glm"])
def test_token_for_token_the_plain_passes(name, changes, request, calls):
    model = request.getfixturevalue(name)
    expected = answers(model, False, **changes)
    lengths = {len(answer.ids) for answer in expected.values()}
    same(answers(model, True, **changes), expected)
    assert calls
    if not changes:
        assert min(lengths) < loop.CHECK < 3 * loop.CHECK < max(lengths)  # rows went, and others went on without them


def test_one_recording_for_each_shape_and_set_of_adapters(qwen, calls):
    stack.activate(qwen, ["sft"])
    first = answers(qwen, True)
    shapes = len(calls)
    assert 1 < shapes <= 4  # 8 rows, then 4, 2, 1
    for _ in range(2):
        same(answers(qwen, True), first)
    assert len(calls) == shapes
    with stack.active(qwen, ["reward"]):
        same(answers(qwen, True), answers(qwen, False))
    assert len(calls) > shapes
    same(answers(qwen, True), first)


def test_merged_adapters_are_read_where_the_weights_always_were(qwen, calls):
    stack.activate(qwen, ["sft"])
    places = {name: p.data_ptr() for name, p in qwen.named_parameters()}
    with stack.merged(qwen):
        assert {name: p.data_ptr() for name, p in qwen.named_parameters()} == places
        same(answers(qwen, True, eos=NEVER), answers(qwen, False, eos=NEVER))
    before = len(calls)
    layer = qwen.get_submodule("base_model.model.model.layers.0.self_attn.q_proj").lora_B.sft
    with torch.no_grad():
        layer.weight.mul_(-2.0)  # as training would
    try:
        with stack.merged(qwen):
            same(answers(qwen, True, eos=NEVER), answers(qwen, False, eos=NEVER))
        assert len(calls) == before
    finally:
        with torch.no_grad():
            layer.weight.mul_(-0.5)


def test_storage_stays_and_grows_when_it_must(qwen):
    language_model = qwen.get_base_model()
    answers(qwen, True, count=8)
    small = graphs.Storage.known[language_model]
    keys = small.layers[0].keys.data_ptr()
    answers(qwen, True, count=3)
    assert graphs.Storage.known[language_model] is small and small.layers[0].keys.data_ptr() == keys
    wide = [[7] * 150]
    found = dict(generate(qwen, wide, ["a"], PLAIN, 70, 8, [3], 0, True, True))
    same(found, dict(generate(qwen, wide, ["a"], PLAIN, 70, 8, [3], 0, True, False)))
    large = graphs.Storage.known[language_model]
    assert (large.rows, large.columns) == (8, 256) and small.columns == 128


def test_a_row_without_an_answer_stays_finite(qwen):
    """Seven rows in a size of eight: what the eighth holds must not be NaN, which masks do not hide."""
    ids, mask = left_pad(prompts(qwen, 7), 0, "cpu")
    passes = graphs.RecordedSteps(qwen, ids, mask, 10)
    logits = passes.first()
    for _ in range(3):
        logits = passes.next(logits.argmax(-1))
    run = passes.storage.step(passes.language_model, 8, passes.columns, passes.adapters)
    assert passes.rows == 8 and run().isfinite().all()


def test_what_a_recording_can_not_hold_is_left_to_the_plain_passes(qwen, monkeypatch):
    monkeypatch.undo()
    ids = torch.zeros(1, 1, dtype=torch.long)
    assert not graphs.usable(qwen, ids)  # on a CPU

    class OnGpu:
        is_cuda = True

        def __getitem__(self, rows):
            return ids

    assert graphs.usable(qwen, OnGpu())
    waits = {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}, "sliding_window": 8}
    for name, value in waits.items():
        with monkeypatch.context() as patch:
            patch.setattr(qwen.config, name, value)
            assert not graphs.usable(qwen, OnGpu()), name
    monkeypatch.setattr(forward.causal_lm(qwen), "is_loaded_in_8bit", True, raising=False)
    assert not graphs.usable(qwen, OnGpu())
