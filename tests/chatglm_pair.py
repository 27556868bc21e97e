"""A question and its answer → ids and labels, cut as ChatGLM-Efficient-Tuning cuts them."""

from typing import Any

IGNORED = -100


def training_pair(
    tokenizer: Any, prompt: str, answer: str, max_source_length: int, max_target_length: int
) -> dict[str, list[int]]:
    """`prompt [gMASK] <sop> answer <eop>`, where the answer and its <eop> are learnt.

    Too long texts lose their END, as in the tutorial; a pipeline that would rather keep the question drops the oldest
    rounds before.

    Args:
        tokenizer: a `ChatGLMTokenizer`.
        prompt: as `prompt.render` gives it.
        answer: its text.
        max_source_length: the most ids of the prompt with its two special tokens.
        max_target_length: the most ids of the answer with its <eop>.

    Returns:
        `input_ids` and `labels` of one length; labels are −100 on the prompt, [gMASK] and <sop>.
    """
    source = tokenizer.encode(prompt, add_special_tokens=False)[: max_source_length - 2]
    target = tokenizer.encode(answer, add_special_tokens=False)[: max_target_length - 1]
    ids = tokenizer.build_inputs_with_special_tokens(source, target)
    learnt = len(target) + 1
    return {"input_ids": ids, "labels": [IGNORED] * (len(ids) - learnt) + ids[-learnt:]}
