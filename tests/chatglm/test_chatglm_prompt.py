"""Prompts as text and as ids, the chat template, and what a template refuses."""

import pytest
from chatglm_pair import training_pair
from transformers import AutoTokenizer

from stages.models.chatglm import prompt


def test_prompt_formats():
    history = [("你好", "您好。"), ("咳嗽", "喝水")]
    assert prompt.render([], "发烧", 0) == "发烧"
    assert prompt.render(history, "发烧", 0) == (
        "[Round 0]\n问：你好\n答：您好。\n[Round 1]\n问：咳嗽\n答：喝水\n[Round 2]\n问：发烧\n答："
    )
    assert prompt.render([], "发烧", 1) == "[Round 1]\n\n问：发烧\n\n答："
    assert prompt.render(history[:1], "发烧", 1) == (
        "[Round 1]\n\n问：你好\n\n答：您好。\n\n[Round 2]\n\n问：发烧\n\n答："
    )


def test_chat_template_gives_the_official_ids(tokenizer, texts):
    official = next(case for case in texts["cases"] if case["text"].startswith("[Round 0]"))
    first = "你好👋！我是人工智能助手 ChatGLM-6B，很高兴见到你，欢迎问我任何问题。"
    messages = [
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "晚上睡不着应该怎么办"},
    ]
    assert tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == official["text"]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    assert ids == official["ids_special"]


def test_chat_template_with_an_answer(tiny):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    asked = [{"role": "user", "content": "我发烧了"}]
    answered = [*asked, {"role": "assistant", "content": "多喝水"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False)
    answer = tokenizer.encode("多喝水", add_special_tokens=False)
    whole = tokenizer.apply_chat_template(answered, return_assistant_tokens_mask=True)
    assert whole["input_ids"] == [*ids, *answer, tokenizer.eos_token_id]
    assert whole["assistant_masks"] == [0] * len(ids) + [1] * (len(answer) + 1)
    open_ended = tokenizer.apply_chat_template(answered, continue_final_message=True, return_dict=False)
    assert open_ended == [*ids, *answer]
    batch = tokenizer.apply_chat_template(
        [asked, [*answered, *asked]], add_generation_prompt=True, padding=True, return_tensors="pt"
    )
    assert batch["input_ids"][0, -len(ids) :].tolist() == ids
    assert batch["attention_mask"].sum(1).tolist()[0] == len(ids)
    masks = tokenizer.apply_chat_template(
        [answered, [*asked, *answered[1:], *answered]], padding=True, return_assistant_tokens_mask=True
    )
    assert masks["assistant_masks"][0][-len(answer) - 1 :] == [1] * (len(answer) + 1)
    assert [sum(mask) for mask in masks["assistant_masks"]] == [len(answer) + 1] * 2
    assert len({len(row) for row in [*masks["assistant_masks"], *masks["input_ids"]]}) == 1
    cut = tokenizer.apply_chat_template(
        asked, add_generation_prompt=True, return_dict=False, truncation=True, max_length=4
    )
    assert cut == [*ids[:2], *ids[-2:]]


@pytest.mark.parametrize(
    ("roles", "arguments", "message"),
    [
        (["system", "user"], {"add_generation_prompt": True}, "message 0 has role `system`"),
        (["user", "user"], {"add_generation_prompt": True}, "message 1 has role `user`"),
        (["user"], {}, "pass add_generation_prompt"),
        (["user", "assistant"], {"add_generation_prompt": True}, "leave add_generation_prompt out"),
        (["user"], {"add_generation_prompt": True, "tools": [1]}, "tools"),
        ([], {}, "at least one message"),
    ],
)
def test_chat_template_refusals(tiny, roles, arguments, message):
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    with pytest.raises(ValueError, match=message):
        tokenizer.apply_chat_template([{"role": role, "content": "好"} for role in roles], **arguments)


def test_labels_and_truncation(tokenizer, texts):
    case = texts["pairs"][1]
    whole = training_pair(tokenizer, case["text"], case["text_pair"], 64, 64)
    border = case["ids"].index(130004) + 1
    assert whole["input_ids"] == case["ids"]
    assert whole["labels"] == [-100] * border + case["ids"][border:]
    cut = training_pair(tokenizer, case["text"], case["text_pair"], 6, 4)
    assert cut["input_ids"] == [*case["ids"][:4], 130001, 130004, *case["ids"][border : border + 3], 130005]
    assert cut["labels"] == [-100] * 6 + cut["input_ids"][6:]
