"""Generation: step by step, from a cache, with beams and in batches, it is what one pass over the text gives."""

import pytest
import torch
from chatglm_cases import EOP, PAD, close, mask_of
from transformers import DynamicCache, StaticCache


def test_one_pass_equals_incremental_generation(sdpa, cases):
    """What PPO rests on: the sampled answer, scored in one pass with left padding, has the logits it was drawn from."""
    ids = cases["batch_prompt.input_ids"]
    torch.manual_seed(0)
    drawn = sdpa.generate(
        ids,
        attention_mask=mask_of(ids),
        max_new_tokens=12,
        do_sample=True,
        top_k=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    new = drawn.sequences[:, ids.shape[1] :]
    ended = (new == EOP).cumsum(1) - (new == EOP).long() > 0  # after <eop>
    mask = torch.cat([mask_of(ids), (~ended).long()], dim=1)
    with torch.no_grad():
        hidden = sdpa.get_decoder()(drawn.sequences, attention_mask=mask).last_hidden_state
        logits = sdpa.get_output_embeddings()(hidden[:, ids.shape[1] - 1 : -1])
    close(logits[~ended], torch.stack(drawn.logits, dim=1)[~ended])


@pytest.mark.parametrize("kind", ["own", "dynamic", "static"])
def test_stepwise_decoding_needs_no_positions(sdpa, cases, kind):
    ids, expected = cases["batch_prompt.input_ids"], cases["generate_batch.scores"]
    answers = cases["generate_batch.sequences"][:, ids.shape[1] :]
    cache = {"own": None, "dynamic": DynamicCache(), "static": StaticCache(config=sdpa.config, max_cache_len=30)}[kind]
    mask, tokens, found = mask_of(ids), ids, []
    with torch.no_grad():
        for step in range(answers.shape[1]):
            output = sdpa(tokens, attention_mask=mask, past_key_values=cache, use_cache=True)
            cache, tokens = output.past_key_values, answers[:, step : step + 1]
            found.append(output.logits[:, -1])
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
    close(torch.stack(found, dim=1), expected)


def test_beams_of_a_batch_equal_beams_of_each(sdpa, cases):
    ids = cases["batch_prompt.input_ids"][:2]  # two rows: as many as position channels
    arguments = {"max_new_tokens": 6, "num_beams": 3, "do_sample": False}
    both = sdpa.generate(ids, attention_mask=mask_of(ids), **arguments)
    for row in range(2):
        alone = ids[row, ids[row] != PAD][None]
        assert torch.equal(both[row, ids.shape[1] :], sdpa.generate(alone, **arguments)[0, alone.shape[1] :])


def test_generation_goes_on_from_a_cache(sdpa, cases):
    ids = cases["single_prompt.input_ids"]
    first = sdpa.generate(ids, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    rest = sdpa.generate(first.sequences, past_key_values=first.past_key_values, max_new_tokens=13, do_sample=False)
    assert torch.equal(rest, cases["generate_single.sequences"])


def test_logits_processors_are_honoured(sdpa, cases):
    ids = cases["batch_prompt.input_ids"]

    def only_seven(_, scores):
        return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([7]), 0.0)

    found = sdpa.generate(
        ids, attention_mask=mask_of(ids), max_new_tokens=3, do_sample=True, logits_processor=[only_seven]
    )
    assert (found[:, ids.shape[1] :] == 7).all()


def test_a_cache_changed_behind_the_model_is_refused(sdpa, cases):
    ids = cases["batch_prompt.input_ids"]
    cache = sdpa(ids, attention_mask=mask_of(ids), use_cache=True).past_key_values
    mask = torch.cat([mask_of(ids), torch.ones(3, 1, dtype=torch.long)], dim=1)
    with pytest.raises(ValueError, match="the cached ones included"):
        sdpa(ids[:, -1:], attention_mask=mask_of(ids), past_key_values=cache)
    cache.batch_select_indices(torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="no longer knows where its rows ended"):
        sdpa(ids[[0, 2], -1:], attention_mask=mask[[0, 2]], past_key_values=cache)
