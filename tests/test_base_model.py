"""The small base model: its folder, how it loads, and that its text leaves out what the sample holds out."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

FOLDER = Path("data/base")
SAMPLE = Path("data/sample")
sys.path[:0] = [str(FOLDER), str(SAMPLE)]

import corpus  # noqa: E402
import train  # noqa: E402
import vocabulary  # noqa: E402

pytestmark = pytest.mark.slow

TEXT = "我嗓子疼三天了，咽口水也疼。\n可以喝蓝芩口服液吗？一次两支，38.5℃（IgM、CT）！"


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(FOLDER, padding_side="left")


def test_corpus_has_no_held_out_text():
    held_out = set()
    for name in ("validate_data.json", "test_data.json"):
        for dialogue in json.loads((SAMPLE / name).read_text(encoding="utf-8")):
            for turn in dialogue:
                text = turn.removeprefix("病人：").removeprefix("医生：")
                for sentence in corpus.BOILERPLATE:
                    text = text.replace(sentence, "")
                held_out.add(text)
    for record in json.loads((SAMPLE / "preferences.json").read_text(encoding="utf-8")):
        held_out |= {record["instruction"], record["instruction"] + record["input"], *record["output"]}
    held_out = {text for text in held_out if len(corpus.bare(text)) >= corpus.COMPARED}
    documents = [document for part in corpus.PARTS for document in corpus.documents(1500, 7, part)]
    written = {piece for document in documents for piece in corpus.pieces(document)}
    assert len(held_out) > 1000
    assert not written & held_out


def test_corpus_has_the_doctors_words(tokenizer):
    """No adapter can teach a frozen base to write a token that it never had to write."""
    written, wanted = Counter(), Counter()
    for part in (train.PARTS[0], train.PARTS[-1]):
        documents = corpus.documents(4000, train.SEED, part.name)
        written += train.targets([train.encode(tokenizer, document, part) for document in documents])
    for dialogue in json.loads((SAMPLE / "train_data.json").read_text(encoding="utf-8")):
        for turn in dialogue:
            if turn.startswith("医生："):
                wanted.update(tokenizer.encode(turn.removeprefix("医生："), add_special_tokens=False))
    for sentence in corpus.BOILERPLATE:
        for token in tokenizer.encode(sentence, add_special_tokens=False):
            wanted.pop(token, None)
    frequent = [token for token, count in wanted.items() if count >= 10 and tokenizer.decode([token]).isalpha()]
    assert len(frequent) > 400
    assert tokenizer.unk_token_id not in written
    assert not [tokenizer.decode([token]) for token in frequent if written[token] < 5]


def test_corpus_is_deterministic():
    assert list(corpus.documents(50, 3, "read")) == list(corpus.documents(50, 3, "read"))


def test_folder_is_small_and_has_no_pickle():
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 8_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja", ".py", ".md", ".csv"}


def test_loads_and_answers(tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    assert model.config.vocab_size == len(tokenizer)
    messages = [{"role": "user", "content": "我嗓子疼三天了，怎么办？"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    out = model.generate(**ids, max_new_tokens=128, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert out[-1] == tokenizer.eos_token_id
    text = tokenizer.decode(out, skip_special_tokens=True)
    assert 30 <= len(text) <= 150
    assert "\ufffd" not in text


def test_chat_template(tokenizer):
    messages = [
        {"role": "system", "content": "一"},
        {"role": "user", "content": "二"},
        {"role": "assistant", "content": "三"},
        {"role": "user", "content": "四"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == "<|system|>一<|end|><|user|>二<|end|><|assistant|>三<|end|><|user|>四<|end|><|assistant|>"


def test_tokenizer_round_trips_what_it_knows(tokenizer):
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT
    texts = [
        "".join(dialogue)
        for name in ("train_data.json", "test_data.json")
        for dialogue in json.loads((SAMPLE / name).read_text(encoding="utf-8"))
    ]
    unknown = [c for c in "".join(texts) if tokenizer.unk_token_id in tokenizer.encode(c)]
    assert set(unknown) <= set("旦寄陪")  # the model card names them
    for text in texts:
        known = "".join(c for c in text if c not in "旦寄陪")
        assert tokenizer.decode(tokenizer.encode(known)) == known


def test_unknown_characters_cost_a_token_and_never_a_broken_character(tokenizer):
    ids = tokenizer.encode("我🙂鱻")
    assert ids.count(tokenizer.unk_token_id) == 2
    assert tokenizer.decode(ids, skip_special_tokens=True) == "我"
    for index in range(len(tokenizer)):
        assert "\ufffd" not in tokenizer.decode([index])
    assert tokenizer.unk_token == vocabulary.UNKNOWN
