"""Answers that share a row with their prompt are scored as each is by itself, or not put together at all."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM, Qwen3Config, Qwen3ForCausalLM

from stages.models import base_model, reward, shared_prompt, stack

torch.set_num_threads(1)
PROMPTS = [[7, 8, 9, 10], [7, 8], [7, 8, 9, 10], [30, 31, 32], [7, 8, 9, 10], [7, 8]]
RESPONSES = [[11, 3], [12, 13, 14, 3], [15, 16, 17, 3], [3], [18] * 9, [11, 3]]
SHAPE = {
    "vocab_size": 64, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip


def test_packed_rows_by_hand():
    packed = shared_prompt.pack([([5, 6], [[7], [8, 9]]), ([4], [[3, 3]])], pad=0)
    assert packed.ids.tolist() == [[5, 6, 7, 8, 9], [4, 3, 3, 0, 0]]
    assert packed.positions.tolist() == [[0, 1, 2, 2, 3], [0, 1, 2, 0, 0]]
    assert packed.parts.tolist() == [[0, 0, 1, 2, 2], [0, 1, 1, -1, -1]]
    assert packed.ends.tolist() == [[0, 2], [0, 4], [1, 2]]
    seen = shared_prompt.mask(packed.parts)[0, 0].int().tolist()
    assert seen == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("row", [9, 512])
def test_rewards_are_those_of_each_answer_alone(tiny_folders, attention, row, monkeypatch):
    monkeypatch.setattr(reward, "ROW", row)
    base = base_model.read(tiny_folders.base)
    model = stack.load(base.causal_lm(), [tiny_folders.rm])
    model.base_model.model.set_attn_implementation(attention)
    head = reward.load_head(tiny_folders.rm, None)
    together = reward.score_by_prompt(model, head, PROMPTS, RESPONSES, 0, tokens_per_batch=40)
    alone = [reward.score(model, head, [p], [r], 0, 40)[0] for p, r in zip(PROMPTS, RESPONSES, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert max(alone) - min(alone) > 0.01
    assert together[1] != together[5] and alone[0] != alone[5], "the same answer to other prompts, or another answer"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE)), None),
        (lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, attn_implementation="eager")), None),
        (lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=16, n_layer=2, n_head=2, n_positions=64)), None),
        (lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=4)), "window"),
    ],
)
def test_a_model_that_cannot_do_it_is_noticed(make, reason):
    torch.manual_seed(0)
    model = make()
    found = shared_prompt.why_not(model, (PROMPTS[0], RESPONSES[1:3]), pad=0)
    assert (found is None) if reason is None else (reason in str(found))


def test_a_model_that_reads_more_than_its_mask_allows_is_noticed():
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(Qwen3Config(**SHAPE))
    inner = model.model.forward
    model.model.forward = lambda attention_mask=None, **more: inner(**more)  # what ignores the mask
    assert "more than its mask" in str(shared_prompt.why_not(model, (PROMPTS[0], RESPONSES[1:3]), pad=0))


def test_the_mode_of_the_model_is_left_as_it_was():
    model = Qwen3ForCausalLM(Qwen3Config(**SHAPE)).train()
    shared_prompt.why_not(model, (PROMPTS[0], RESPONSES[1:3]), pad=0)
    assert model.training
