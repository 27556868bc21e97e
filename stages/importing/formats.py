"""The formats that can be imported: how a record of each looks, and what it says.

A format matches by keys and kinds alone; what is wrong inside a record that matches is its reader's to find.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from stages.importing.conversation import Message, Unusable, read_message, read_messages, read_text
from stages.text.records import is_history

QUESTION_AND_ANSWER = (
    ("prompt", "completion"), ("prompt", "response"), ("question", "answer"), ("query", "response"),
    ("input", "output"),
)  # fmt: skip
MEDIA = ("images", "image", "videos", "video", "audios", "audio")


class Preference(NamedTuple):
    """A question after the conversation so far, and its answers."""

    messages: list[Message]
    """End with the question."""
    answers: list[str]
    """The best first."""


class Format(NamedTuple):
    name: str
    """What `--format` takes."""
    kind: Literal["dialogues", "preferences"]
    title: str
    example: str
    matches: Callable[[dict[str, Any]], bool]
    read: Callable[[Any], Any]
    """A record → its messages, or a `Preference`. Raises Unusable."""

    @property
    def about(self) -> str:
        return f"{self.title}, {self.example}"


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) and "role" in row for row in value)


def _is_from_value(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) and "from" in row for row in value)


def _compares(record: dict[str, Any]) -> bool:
    return "chosen" in record or "rejected" in record


def _texts(record: dict[str, Any], *keys: str) -> bool:
    return all(isinstance(record.get(key), str) for key in keys)


def _openai(record: dict[str, Any]) -> bool:
    found = record.get("messages", record.get("conversations"))
    return _is_messages(found) and bool(found or "messages" in record) and not _compares(record)


def _read_openai(record: dict[str, Any]) -> list[Message]:
    return read_messages(record.get("messages", record.get("conversations")))


def _sharegpt(record: dict[str, Any]) -> bool:
    found = record.get("conversations", record.get("conversation"))
    return _is_from_value(found) and not _compares(record)


def _read_sharegpt(record: dict[str, Any]) -> list[Message]:
    return _system(record) + read_messages(record.get("conversations", record.get("conversation")), "from", "value")


def _alpaca(record: dict[str, Any]) -> bool:
    return _texts(record, "instruction", "output") and not _compares(record)


def _read_alpaca(record: dict[str, Any]) -> list[Message]:
    return _alpaca_prompt(record) + [Message("assistant", read_text(record["output"]))]


def _alpaca_prompt(record: dict[str, Any]) -> list[Message]:
    history = record.get("history") or []
    if not is_history(history):
        raise Unusable("a `history` that is no list of [question, answer]")
    earlier = [Message(role, text) for turn in history for role, text in zip(("user", "assistant"), turn, strict=True)]
    more = record.get("input") or ""
    question = read_text(record["instruction"]) + (f"\n{read_text(more)}" if more else "")
    return [*_system(record), *earlier, Message("user", question)]


def _pair_keys(record: dict[str, Any]) -> list[tuple[str, str]]:
    return [keys for keys in QUESTION_AND_ANSWER if all(key in record for key in keys)]


def _question_answer(record: dict[str, Any]) -> bool:
    keys = _pair_keys(record)
    if "instruction" in record or "label" in record or "kto_tag" in record or _compares(record):
        return False
    return any(
        (_texts(record, *pair)) or all(_is_messages(record[key]) and record[key] for key in pair) for pair in keys
    )


def _read_question_answer(record: dict[str, Any]) -> list[Message]:
    keys = _pair_keys(record)
    if len(keys) > 1:
        raise Unusable(f"several columns that could be question and answer: {', '.join(record)}")
    question, answer = (record[key] for key in keys[0])
    return _system(record) + _prompt(question) + _prompt(answer, "assistant")


def _covid(record: Any) -> bool:
    return isinstance(record, list) and all(isinstance(turn, str) for turn in record)


def _read_covid(record: list[str]) -> list[Message]:
    """Turns of a patient and a doctor, by their prefixes."""
    messages = []
    for turn in record:
        role = {"病人：": "user", "医生：": "assistant"}.get(turn[:3])
        if role is None:
            raise Unusable("a turn that begins with neither 病人： nor 医生：")
        messages.append(Message(role, turn[3:]))
    return messages


def _trl(record: dict[str, Any]) -> bool:
    if "instruction" in record or "conversations" in record or not _two_answers(record):
        return False
    if "prompt" in record:
        return isinstance(record["prompt"], str) or _is_messages(record["prompt"])
    return _is_messages(record["chosen"])


def _read_trl(record: dict[str, Any]) -> Preference:
    whole = isinstance(record["chosen"], list) and len(record["chosen"]) > 1
    if "prompt" in record and not (whole and isinstance(record["prompt"], str)):
        return Preference(_system(record) + _prompt(record["prompt"]), [_answer(record[k]) for k in CHOICES])
    chosen, rejected = (read_messages(record[key]) for key in CHOICES)  # the prompt is what both begin with
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        raise Unusable("chosen and rejected do not begin with the same messages")
    return Preference(chosen[:-1], [_assistant(chosen[-1]), _assistant(rejected[-1])])


CHOICES = ("chosen", "rejected")


def _two_answers(record: dict[str, Any]) -> bool:
    return all(
        isinstance(record.get(key), str | dict) or (_is_messages(record.get(key)) and record[key]) for key in CHOICES
    )


def _read_alpaca_preference(record: dict[str, Any]) -> Preference:
    return Preference(_alpaca_prompt(record), [_answer(record[key]) for key in CHOICES])


def _read_sharegpt_preference(record: dict[str, Any]) -> Preference:
    rows = record["conversations"]
    messages = read_messages(rows, "from", "value") if _is_from_value(rows) else read_messages(rows)
    return Preference(_system(record) + messages, [_answer(record[key]) for key in CHOICES])


def _ranking(record: dict[str, Any]) -> bool:
    return _texts(record, "instruction") and isinstance(record.get("output"), list) and not _compares(record)


def _read_ranking(record: dict[str, Any]) -> Preference:
    if len(record["output"]) < 2:
        raise Unusable("fewer than two answers")
    return Preference(_alpaca_prompt(record), [read_text(answer) for answer in record["output"]])


def _system(record: dict[str, Any]) -> list[Message]:
    """What a record says of media and tools, and its system message."""
    if any(record.get(key) for key in MEDIA):
        raise Unusable("images, sound or video: the pipeline trains on texts alone")
    text = record.get("system")
    return [Message("system", read_text(text))] if text else []


def _prompt(value: Any, role: str = "user") -> list[Message]:
    return read_messages(value) if isinstance(value, list) else [Message(role, read_text(value))]


def _answer(value: Any) -> str:
    if isinstance(value, list):
        if len(value) != 1 or not isinstance(value[0], dict):
            raise Unusable("chosen or rejected is more than one message")
        value = value[0]
    if isinstance(value, dict):
        keys = ("from", "value") if "from" in value else ("role", "content")
        return _assistant(read_message(value, *keys))
    return read_text(value)


def _assistant(message: Message) -> str:
    if message.role != "assistant":
        raise Unusable("chosen or rejected is no assistant's message")
    return message.text


FORMATS = (
    Format("openai", "dialogues", "OpenAI messages", '{"messages": [{"role": "user", "content": …}, …]}',
           _openai, _read_openai),
    Format("sharegpt", "dialogues", "ShareGPT", '{"conversations": [{"from": "human", "value": …}, …]}',
           _sharegpt, _read_sharegpt),
    Format("alpaca", "dialogues", "Alpaca", '{"instruction": …, "input": …, "output": …, "history": [[…, …], …]}',
           _alpaca, _read_alpaca),
    Format("question-answer", "dialogues", "question and answer", '{"prompt": …, "completion": …}',
           _question_answer, _read_question_answer),
    Format("covid", "dialogues", "the COVID dialogues' format", '["病人：…", "医生：…", …]', _covid, _read_covid),
    Format("trl", "preferences", "TRL", '{"prompt": …, "chosen": …, "rejected": …}', _trl, _read_trl),
    Format("alpaca-preference", "preferences", "LLaMA-Factory's Alpaca preferences",
           '{"instruction": …, "input": …, "chosen": …, "rejected": …}',
           lambda record: _texts(record, "instruction") and _two_answers(record), _read_alpaca_preference),
    Format("sharegpt-preference", "preferences", "LLaMA-Factory's ShareGPT preferences",
           '{"conversations": […], "chosen": {…}, "rejected": {…}}',
           lambda record: isinstance(record.get("conversations"), list) and _two_answers(record),
           _read_sharegpt_preference),
    Format("ranking", "preferences", "ranked answers", '{"instruction": …, "input": …, "output": [best, …, worst]}',
           _ranking, _read_ranking),
)  # fmt: skip
BY_NAME = {each.name: each for each in FORMATS}


def matching(record: Any) -> list[Format]:
    """The formats that a record may be in."""
    if isinstance(record, list):
        if record and _is_messages(record):
            return [BY_NAME["openai"]]
        return [BY_NAME["covid"]] if _covid(record) else []
    if not isinstance(record, dict):
        return []
    return [each for each in FORMATS if each.name != "covid" and each.matches(record)]


def read(record: Any, form: Format) -> Any:
    """The messages or the `Preference` of a record; raises Unusable."""
    if isinstance(record, list) and form.name == "openai":
        return read_messages(record)
    if form not in matching(record):
        raise Unusable(f"not in the format {form.title}")
    if isinstance(record, dict):
        _system(record)
        if record.get("tools"):
            raise Unusable("tool calls: the pipeline trains on texts alone")
    return form.read(record)
