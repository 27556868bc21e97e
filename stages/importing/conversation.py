"""Chat messages of any spelling → turns of a question and an answer."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

ROLES = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "tool": "tool", "function": "tool", "function_call": "tool", "observation": "tool", "ipython": "tool",
}  # fmt: skip
"""Names of roles in OpenAI's, ShareGPT's and LLaMA-Factory's files."""


class Unusable(Exception):
    """A record that can't be imported; the text is the reason, by which such records are counted."""


class Message(NamedTuple):
    role: str
    """`system`, `user` or `assistant`."""
    text: str


def read_messages(rows: Any, role_key: str = "role", text_key: str = "content") -> list[Message]:
    """Raises Unusable for anything but texts of a user, an assistant and a system."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Unusable("not a list of messages")
    return [read_message(row, role_key, text_key) for row in rows]


def read_message(row: dict[str, Any], role_key: str, text_key: str) -> Message:
    """One message, see `read_messages`."""
    name = row.get(role_key)
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role == "tool" or any(row.get(key) for key in ("tool_calls", "function_call")):
        raise Unusable("tool calls: the pipeline trains on texts alone")
    if role is None:
        raise Unusable(f"a message whose `{role_key}` is none of user, assistant and system")
    return Message(role, read_text(row.get(text_key)))


def read_text(content: Any) -> str:
    """A message's text; of a list of parts, all of them must be texts."""
    if isinstance(content, list) and content and all(isinstance(part, dict) for part in content):
        if any(part.get("type", "text") != "text" for part in content):
            raise Unusable("images, sound or video: the pipeline trains on texts alone")
        parts = [part.get("text") for part in content]
        if all(isinstance(part, str) for part in parts):
            return "\n".join(map(str, parts))
    if not isinstance(content, str):
        raise Unusable("a message without a text")
    return content


def to_turns(
    messages: Sequence[Message], prefix_system: bool, changes: Counter[str]
) -> tuple[list[list[str]], str | None]:
    """`[[question, answer], …]`, and the question at the end that has no answer, if there is one.

    Args:
        prefix_system: put a system message before the question that follows; else it is left out.
        changes: counts what was left out or joined.
    """
    spoken: list[Message] = []
    system: list[str] = []
    for message in messages:
        if message.role == "system":
            changes["system messages put before the question" if prefix_system else "system messages left out"] += 1
            if prefix_system:
                system.append(message.text)
            continue
        if not spoken and message.role == "assistant":
            changes["greetings before the first question left out"] += 1
            continue
        text = "\n\n".join([*system, message.text]) if message.role == "user" else message.text
        system = [] if message.role == "user" else system
        if spoken and spoken[-1].role == message.role:
            changes["messages joined with the one before, of the same speaker"] += 1
            spoken[-1] = Message(message.role, f"{spoken[-1].text}\n{text}")
        else:
            spoken.append(Message(message.role, text))
    open_question = spoken.pop().text if len(spoken) % 2 else None
    texts = [message.text for message in spoken]
    return [list(turn) for turn in zip(texts[0::2], texts[1::2], strict=True)], open_question
