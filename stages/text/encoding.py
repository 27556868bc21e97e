"""Dialogue → token ids, through the tokenizer's chat template, within a length.

What is cut when a text is too long, in this order: the OLDEST turns of the history; then the end of the current
question; the answer is cut at its own limit, from its end. The current question always survives, and no sample is
dropped. A cut never leaves a part of a character.

A chat template is complete: nothing is added before its text. `PLAIN_TEMPLATE` is preceded by what the
tokenizer itself puts before a text (BOS, or `[gMASK]<sop>`), if anything.

A special token that somebody types (`<|im_start|>`, `<sop>` …) stays plain text: it can't open a turn of its own.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from stages.runtime.errors import UserError
from stages.text.records import History

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'user' %}{{ '病人：' + message.content + '\n' }}"
    "{% else %}{{ '医生：' + message.content + eos_token + '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '医生：' }}{% endif %}"
)
"""The documented fallback for a tokenizer without a chat template."""

_FIXED_DATE = (
    "{%- macro strftime_now(form) -%}"
    "{{ form | replace('%Y', '2024') | replace('%m', '07') | replace('%d', '26') | replace('%B', 'July')"
    " | replace('%b', 'Jul') | replace('%A', 'Friday') | replace('%a', 'Fri') | replace('%H', '00')"
    " | replace('%M', '00') | replace('%S', '00') }}"
    "{%- endmacro -%}"
)
"""Goes before a template that writes today's date (Llama 3): a prompt must not change overnight."""

_MARK = "\ue000{}\ue001"
"""Private-use characters, a placeholder for a message while the template is rendered around it."""


class Encoded(NamedTuple):
    """Token ids of one text and how much of it had to go."""

    ids: list[int]
    dropped_turns: int = 0
    cut_tokens: int = 0


def encode_prompt(tokenizer: Any, history: History, instruction: str, max_length: int, section: str) -> Encoded:
    """Ids of the turns and the question, up to and including the words that open the answer.

    Args:
        tokenizer: with a chat template; `PLAIN_TEMPLATE` serves where it has none.
        max_length: the most ids to return.
        section: of params.yaml, whose `max_source_length` this is; for the message.

    Raises:
        UserError: `max_length` has no room for more than the template.
    """
    for dropped in range(len(history) + 1):
        ids = _template_ids(tokenizer, history[dropped:], instruction)
        if len(ids) <= max_length:
            return Encoded(ids, dropped_turns=dropped)
    # The question alone is too long: cut its end and keep the template around it whole. Token boundaries may shift
    # when the shorter text is tokenized again, hence the loop.
    question = _text_ids(tokenizer, instruction)
    keep = len(question) - (len(ids) - max_length)
    while whole := _whole_characters(tokenizer, question[: max(0, keep)]):
        cut = _template_ids(tokenizer, [], tokenizer.decode(whole, clean_up_tokenization_spaces=False))
        if len(cut) <= max_length:
            return Encoded(cut, dropped_turns=len(history), cut_tokens=len(question) - len(whole))
        keep = len(whole) - max(1, len(cut) - max_length)
    raise UserError(
        f"params.yaml: {section}.max_source_length: a maximum of {max_length} tokens has no room for the chat template "
        "and a word of the question"
    )


def encode_answer(tokenizer: Any, answer: str, max_length: int) -> Encoded:
    """Ids of the answer, closed by EOS, at most `max_length` in all; the end of a longer one is cut."""
    ids = _text_ids(tokenizer, answer)
    fitting = ids if len(ids) < max_length else _whole_characters(tokenizer, ids[: max_length - 1])
    return Encoded([*fitting, tokenizer.eos_token_id], cut_tokens=len(ids) - len(fitting))


def normalize(tokenizer: Any, text: str) -> str:
    """The text as a model that reads and writes through this tokenizer could write it: decode(encode(text)), stripped.

    ChatGLM's tokenizer makes full-width letters and punctuation half-width. Compare an answer with its reference in
    this form: otherwise even a perfect answer scores below 100.
    """
    return str(tokenizer.decode(_text_ids(tokenizer, text), skip_special_tokens=True)).strip()


def displayed(tokenizer: Any, answer: str) -> str:
    """A decoded answer as people should see it: stripped, and tidied up by a tokenizer that knows how to."""
    tidy = getattr(tokenizer, "clean_up_response", None)  # a native tokenizer has it
    return str(tidy(answer)) if tidy else answer.strip()


def _template_ids(tokenizer: Any, history: Sequence[Sequence[str]], instruction: str) -> list[int]:
    messages = []
    for question, answer in history:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages.append({"role": "user", "content": instruction})
    if getattr(tokenizer, "renders_messages_safely", False):  # a native tokenizer keeps typed special tokens as text
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False))

    before_text = [] if tokenizer.chat_template else _before_text(tokenizer)
    if not _types_special(tokenizer, messages):
        return before_text + list(tokenizer.encode(_render(tokenizer, messages), add_special_tokens=False))
    # Somebody typed a special token: tokenize the template and the messages apart.
    marks = [_MARK.format(index) for index in range(len(messages))]
    rendered = _render(tokenizer, [m | {"content": mark} for m, mark in zip(messages, marks, strict=True)])
    ids = before_text
    for message, mark in zip(messages, marks, strict=True):
        before, rendered = rendered.split(mark, 1)
        ids += tokenizer.encode(before, add_special_tokens=False)
        ids += _text_ids(tokenizer, message["content"])
    return ids + list(tokenizer.encode(rendered, add_special_tokens=False))


def _render(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    text = str(
        tokenizer.apply_chat_template(
            messages,
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,  # Qwen3, Hunyuan and their kin: answer at once
            chat_template=_template(tokenizer),
        )
    )
    opened = text.rstrip()
    return f"{opened}\n\n</think>\n\n" if opened.endswith("<think>") else text  # a template that knows no other way


def _template(tokenizer: Any) -> str:
    if not tokenizer.chat_template:
        return PLAIN_TEMPLATE
    template = str(tokenizer.get_chat_template())
    return _FIXED_DATE + template if "strftime_now" in template else template


def _before_text(tokenizer: Any) -> list[int]:
    """The special ids that the tokenizer puts before a text by itself."""
    special = set(tokenizer.all_special_ids)
    return list(itertools.takewhile(special.__contains__, tokenizer.encode("a")))


def _types_special(tokenizer: Any, messages: list[dict[str, str]]) -> bool:
    special = [str(token) for token in tokenizer.added_tokens_encoder] + list(tokenizer.all_special_tokens)
    return any(token in message["content"] for message in messages for token in special)


def _text_ids(tokenizer: Any, text: str) -> list[int]:
    """Ids of a text in which no special token is recognised."""
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))


def _whole_characters(tokenizer: Any, ids: list[int]) -> list[int]:
    """The ids without those of a last character whose other bytes were cut off."""
    for end in range(len(ids), max(-1, len(ids) - 4), -1):  # a character has at most four bytes
        if not tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False).endswith("\ufffd"):
            return ids[:end]
    return ids  # somebody typed that very sign
