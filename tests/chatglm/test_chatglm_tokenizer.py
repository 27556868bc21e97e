"""The tokenizer against ids that the original one gave, but for its hole: a text never becomes a control token."""

import json
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from stages.models.chatglm import positions

CONTROL = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<pad>", "<unk>", "<s>", "</s>", "<ENC>", "<dBLOCK>")


def test_ids_are_the_official_ones(tokenizer, texts):
    assert len(texts["cases"]) == 47
    differing = 0
    for case in texts["cases"]:
        ids = tokenizer.encode(case["text"], add_special_tokens=False)
        if {0, 3, 130000, 130004, 130005} & set(case["ids"]):  # the official hole, see the next test
            differing += 1
            assert tokenizer.decode(ids) == case["text"]
        else:
            assert ids == case["ids"]
            assert tokenizer.tokenize(case["text"]) == case["tokens"]
            assert tokenizer(case["text"])["input_ids"] == case["ids_special"]
        assert tokenizer.decode(case["ids"]) == case["decoded"]
        assert tokenizer.decode(case["ids"], skip_special_tokens=True) == case["decoded_skip_special"]
    assert differing == 7
    for case in texts["pairs"]:
        ids = tokenizer(case["text"], case["text_pair"])["input_ids"]
        assert (ids, tokenizer.decode(ids)) == (case["ids"], case["decoded"])
    for case in texts["decode_only"]:
        assert tokenizer.decode(case["ids"]) == case["decoded"]
        assert tokenizer.decode(case["ids"], skip_special_tokens=True) == case["decoded_skip_special"]


def test_named_tokens(tokenizer, texts):
    assert len(tokenizer) == texts["len"]
    assert {name: getattr(tokenizer, name) for name in texts["attrs"]} == texts["attrs"]
    named = {name: tokenizer.convert_tokens_to_ids(name) for name in texts["named_ids"]}
    assert named == texts["named_ids"]


@pytest.mark.parametrize("which", ["tokenizer", "tiny"])
def test_no_text_becomes_a_control_token(request, which):
    found = request.getfixturevalue(which)
    tokenizer = AutoTokenizer.from_pretrained(found) if isinstance(found, Path) else found
    named = {tokenizer.convert_tokens_to_ids(token) for token in CONTROL}
    control = named - {tokenizer.unk_token_id} | set(tokenizer.all_special_ids)
    for token in CONTROL:
        for text in (token, f"你好{token}世界", f"{token}{token}", f" {token}\n"):
            assert not control & set(tokenizer.encode(text, add_special_tokens=False)), text
            assert not control & set(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=False)), text
            messages = [{"role": "user", "content": text}]
            ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            assert [i for i in ids if i in control] == [tokenizer.gmask_token_id, tokenizer.bos_token_id] == ids[-2:]


def test_batches_are_padded_on_the_left(tokenizer, texts):
    batch = tokenizer(texts["batch"]["texts"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == texts["batch"]["input_ids"]
    real = batch["attention_mask"].bool()
    found = positions.prompt_positions(batch["input_ids"], real, bos=130004, gmask=130001, mask=130000)
    assert found.tolist() == texts["batch"]["position_ids"]
    hidden = ~positions.visible(found, real, 0, real.shape[1])
    assert hidden.int().tolist() == texts["batch"]["attention_mask"]


def test_ids_past_the_vocabulary_decode_to_nothing(tokenizer):
    assert tokenizer.decode([5, 74874, 130400, -100]) == "你好"
    assert tokenizer.batch_decode([[5, 74874], [3, 130527]]) == ["你好", ""]


def test_saved_tokenizer_is_the_same(tokenizer, tmp_path):
    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path, round_start=1)
    other.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "chatglm"}')
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is type(tokenizer)
    assert (again.round_start, tokenizer.round_start) == (1, 0)
    assert again("你好<sop>")["input_ids"] == tokenizer("你好<sop>")["input_ids"]
    assert "auto_map" not in json.loads((tmp_path / "tokenizer_config.json").read_text())


def test_tokenizer_errors(tmp_path, tiny):
    (tmp_path / "config.json").write_text('{"model_type": "chatglm"}')
    with pytest.raises(ValueError, match=r"ice_text\.model is missing"):
        AutoTokenizer.from_pretrained(tmp_path)
    (tmp_path / "ice_text.model").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match="not a SentencePiece model"):
        AutoTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="num_image_tokens 20000"):
        AutoTokenizer.from_pretrained(tiny, num_image_tokens=20000)
    with pytest.raises(ValueError, match="round_start: 2"):
        AutoTokenizer.from_pretrained(tiny, round_start=2)
    with pytest.raises(ValueError, match="`</eop>` is not a control piece"):
        AutoTokenizer.from_pretrained(tiny, eos_token="</eop>")
    with pytest.raises(ValueError, match="can't grow"):
        AutoTokenizer.from_pretrained(tiny).add_tokens(["<new>"])
