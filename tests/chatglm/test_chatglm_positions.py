"""The two channels of positions, which start at a prompt's special tokens and not at its padding."""

import pytest
import torch
from chatglm_cases import GMASK, MASK, PAD, SOP, close, mask_of

from stages.models.chatglm import positions


def test_positions_by_hand():
    def found(*ids):
        row = torch.tensor([ids])
        return positions.prompt_positions(row, row != PAD, SOP, GMASK, MASK)[0].tolist()

    assert found(10, 11, 12, GMASK, SOP, 20, 21) == [[0, 1, 2, 3, 3, 3, 3], [0, 0, 0, 0, 1, 2, 3]]
    assert found(PAD, PAD, 10, MASK, 11, SOP, 20, PAD) == [[0, 0, 0, 1, 2, 1, 1, 0], [0, 0, 0, 0, 0, 1, 2, 0]]
    # a model may say <sop> or [gMASK] in an answer: the border stays where the prompt put it
    assert found(10, MASK, SOP, SOP, GMASK, 20) == [[0, 1, 1, 1, 1, 1], [0, 0, 1, 2, 3, 4]]


def test_padding_side_changes_nothing(sdpa, cases):
    left = cases["batch_sft.input_ids"]
    real = left != PAD
    right = torch.full_like(left, PAD)
    right_real = real.flip(1)
    for row in range(len(left)):
        right[row, right_real[row]] = left[row, real[row]]
    with torch.no_grad():
        found = sdpa(right, attention_mask=right_real.long()).logits
        alone = sdpa(left[1, real[1]][None]).logits[0]
    close(found[right_real], cases["batch_sft.logits"][real])
    close(found[1, right_real[1]], alone)


def test_padding_stays_finite_under_autocast(sdpa, cases):
    ids = cases["batch_sft.input_ids"]
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=dtype), torch.no_grad():
            found = sdpa(ids, attention_mask=mask_of(ids), labels=cases["batch_sft.labels"])
        assert found.logits.isfinite().all()
        assert found.loss.item() == pytest.approx(cases["batch_sft.loss"].item(), abs=0.02)


def test_prompts_without_their_specials_are_refused(sdpa):
    with pytest.raises(ValueError, match=r"row 1 of input_ids has no <sop> \(504\)"):
        sdpa(torch.tensor([[7, GMASK, SOP], [7, GMASK, 8]]))
    with pytest.raises(ValueError, match=r"row 0 of input_ids has no \[gMASK\]"):
        sdpa(torch.tensor([[7, SOP, GMASK]]))
    with pytest.raises(ValueError, match="two channels"):
        sdpa(torch.tensor([[7, GMASK, SOP]]), position_ids=torch.arange(3)[None])
    with pytest.raises(ValueError, match="in one piece"):
        sdpa.generate(torch.tensor([[7, 8, 9, GMASK, SOP]]), max_new_tokens=2, prefill_chunk_size=2)
