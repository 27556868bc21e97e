"""The rounds of a conversation → the text that ChatGLM-6B is asked with.

Two formats are in use, told apart by the number of the first round:

0   ChatGLM-6B's own, and the tutorial's when it was written: a question without history stands bare; with history,
    `[Round 0]\\n问：…\\n答：…\\n[Round 1]\\n问：…\\n答：`.
1   ChatGLM2's, which ChatGLM-Efficient-Tuning changed to on 2023-06-26:
    `[Round 1]\\n\\n问：…\\n\\n答：…\\n\\n[Round 2]\\n\\n问：…\\n\\n答：`, with or without history.
"""

import re
from collections.abc import Sequence
from typing import Any

_CJK = "[\u4e00-\u9fff]"
_HALF_WIDTH = re.compile(f"(?<={_CJK})[,!:;?]|[,!:;?](?={_CJK})")
_FULL_WIDTH = str.maketrans(",!:;?", "，！：；？")


def render(history: Sequence[tuple[str, str]], query: str, round_start: int) -> str:
    """The prompt's text, without the special tokens that close it.

    Args:
        history: (question, answer) of each earlier round, the oldest first.
        query: the question to answer.
        round_start: 0 or 1.

    Raises:
        ValueError: another `round_start`.
    """
    check_round_start(round_start)
    if round_start == 0 and not history:
        return query
    gap = "\n" if round_start == 0 else "\n\n"
    rounds = [
        f"[Round {number}]{gap}问：{question}{gap}答：{answer}{gap}"
        for number, (question, answer) in enumerate(history, start=round_start)
    ]
    return "".join(rounds) + f"[Round {len(history) + round_start}]{gap}问：{query}{gap}答："


def clean_up_response(response: str) -> str:
    """An answer as ChatGLM-6B's own `chat()` shows it.

    Its tokenizer makes full-width punctuation half-width: beside a Chinese character it becomes full-width again. The
    placeholder for the date of its training becomes the year.
    """
    response = response.strip().replace("[[训练时间]]", "2023年")
    return _HALF_WIDTH.sub(lambda mark: mark[0].translate(_FULL_WIDTH), response)


def check_round_start(round_start: int) -> None:
    """Raises ValueError unless it is 0 or 1."""
    if round_start not in (0, 1):
        raise ValueError(f"round_start: {round_start} is neither 0 (the tutorial's prompt) nor 1 (ChatGLM2's)")


def split_messages(messages: Sequence[dict[str, Any]]) -> tuple[list[tuple[str, str]], str, str | None]:
    """Chat messages → (history, query, answer); the answer is None when the last message is the user's.

    Raises:
        ValueError: the roles are not user, assistant, user, … in turn, or there is no message.
    """
    if not messages:
        raise ValueError("a conversation needs at least one message")
    for index, message in enumerate(messages):
        expected = ("user", "assistant")[index % 2]
        if message["role"] != expected:
            raise ValueError(
                f"message {index} has role `{message['role']}`, but ChatGLM-6B knows only user and assistant in turn: "
                f"expected `{expected}`"
            )
    texts = [str(message["content"]) for message in messages]
    answer = texts.pop() if len(texts) % 2 == 0 else None
    return list(zip(texts[:-1:2], texts[1:-1:2], strict=True)), texts[-1], answer
