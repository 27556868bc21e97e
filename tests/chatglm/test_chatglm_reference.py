"""The model against numbers that the original ChatGLM-6B code gave: masks, logits, losses, gradients, answers."""

import pytest
import torch
from chatglm_cases import close, load, lora_model, mask_of

from stages.models.chatglm import positions
from stages.models.chatglm.layers import rotary_angles, rotary_frequencies
from stages.models.chatglm.modeling import positions_of


@pytest.mark.parametrize(
    ("case", "padded"),
    [
        ("single_prompt", False),
        ("batch_prompt", True),
        ("batch_prompt_internal", False),
        ("mask_token", False),
        ("both_mask_tokens", False),
        ("single_sft", False),
        ("batch_sft", True),
    ],
)
def test_positions_masks_and_logits(model, cases, case, padded):
    ids = cases[f"{case}.input_ids"]
    mask = mask_of(ids) if padded else None
    real = positions.real_tokens(mask, len(ids), ids.shape[1], ids.device)
    position_ids = positions_of(model.config, ids, real)
    assert torch.equal(position_ids, cases[f"{case}.position_ids"])
    hidden = ~positions.visible(position_ids, real, 0, ids.shape[1])
    assert torch.equal(hidden, cases[f"{case}.attention_mask"].expand_as(hidden))

    labels = cases.get(f"{case}.labels")
    with torch.no_grad():
        found = model(ids, attention_mask=mask, labels=labels)
    close(found.logits, cases[f"{case}.logits"])  # rows of padding included
    if labels is not None:
        close(found.loss, cases[f"{case}.loss"][0])


def test_explicit_masks_and_positions(sdpa, cases):
    """The collator's mask, where padding sees the context, gives the same loss."""
    ids, mask = cases["batch_sft.input_ids"], ~cases["batch_sft.attention_mask_collator"]
    with torch.no_grad():
        found = sdpa(ids, mask, cases["batch_sft.position_ids"], labels=cases["batch_sft.labels"])
    close(found.loss, cases["batch_sft.loss"][0])
    close(found.logits[mask_of(ids).bool()], cases["batch_sft.logits"][mask_of(ids).bool()])


def test_hidden_states_attentions_and_cache(cases):
    model = load(attn_implementation="eager")
    with torch.no_grad():
        found = model(
            cases["single_prompt.input_ids"], use_cache=True, output_hidden_states=True, output_attentions=True
        )
    close(torch.stack(found.hidden_states), cases["single_prompt.hidden_states"].transpose(1, 2))
    close(torch.cat(found.attentions), cases["single_prompt.attentions"])
    for layer, cached in enumerate(found.past_key_values.layers):
        close(cached.keys.permute(2, 0, 1, 3), cases["single_prompt.present_key"][layer])
        close(cached.values.permute(2, 0, 1, 3), cases["single_prompt.present_value"][layer])


def test_rotary(cases):
    assert torch.equal(rotary_frequencies(16), cases["rotary.inv_freq_tiny"])
    assert torch.equal(rotary_frequencies(128), cases["rotary.inv_freq_real"])
    both = torch.arange(64).expand(1, 2, 64)
    for angles, name in zip(rotary_angles(both, 16, torch.bfloat16), ("cos", "sin"), strict=True):
        close(angles[0, 0, :, :8], cases[f"rotary.{name}_tiny"])
        close(angles[0, 0, :, 8:], cases[f"rotary.{name}_tiny"])


def test_half_precision_is_near_the_reference(cases):
    with torch.no_grad():
        found = load(dtype=torch.float16)(cases["single_prompt.input_ids"]).logits
    torch.testing.assert_close(found, cases["single_prompt.logits_fp16"], atol=0.25, rtol=0)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients(cases, checkpointing):
    model = load().train()
    if checkpointing:
        model.config.use_cache = False
        model.activation_checkpointing_enable()
    model(cases["single_sft.input_ids"], labels=cases["single_sft.labels"]).loss.backward()
    found = dict(model.named_parameters())
    expected = {name.removeprefix("single_sft.grad."): t for name, t in cases.items() if ".grad." in name}
    assert len(expected) == 6
    for name, gradient in expected.items():
        close(found[name].grad, gradient)


def test_trunk_and_head_are_what_ppo_scores_with(sdpa, cases):
    ids = cases["batch_sft.input_ids"]
    with torch.no_grad():
        trunk = sdpa.get_decoder()(input_ids=ids, attention_mask=mask_of(ids), use_cache=False)
        close(trunk.last_hidden_state, cases["batch_sft.last_hidden"].transpose(0, 1))
        close(sdpa.get_output_embeddings()(trunk.last_hidden_state), cases["batch_sft.logits"])
    assert trunk.past_key_values is None


def test_lora(cases):
    ids = cases["batch_sft.input_ids"]
    model = lora_model(cases)
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask_of(ids), labels=cases["batch_sft.labels"])
    close(found.logits, cases["lora.logits"])
    close(found.loss, cases["lora.loss"][0])


@pytest.mark.parametrize("use", [{}, {"use_cache": False}, {"cache_implementation": "static"}])
@pytest.mark.parametrize(
    ("case", "prompt", "pads_are_real"),
    [
        ("generate_single", "single_prompt", False),
        ("generate_batch", "batch_prompt", False),
        ("generate_batch_internal", "batch_prompt", True),
    ],
)
def test_greedy_generation(sdpa, cases, case, prompt, pads_are_real, use):
    ids = cases[f"{prompt}.input_ids"]
    found = sdpa.generate(
        ids,
        attention_mask=torch.ones_like(ids) if pads_are_real else mask_of(ids),
        max_new_tokens=16,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
        **use,
    )
    assert torch.equal(found.sequences, cases[f"{case}.sequences"])
    close(torch.stack(found.logits, dim=1), cases[f"{case}.scores"])


def test_assisted_generation(sdpa, cases):
    """Several tokens at a time go on from the cache, and rejected ones are taken back."""
    ids = cases["batch_prompt.input_ids"][2:]
    found = sdpa.generate(ids, max_new_tokens=16, do_sample=False, prompt_lookup_num_tokens=2)
    assert torch.equal(found, cases["generate_batch.sequences"][2:])
