"""Training examples in JSONL files, one JSON object per line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

ROLES = ("system", "user", "assistant")
"""Roles of the messages in a chat."""

E = TypeVar("E")


@dataclass(frozen=True)
class Chat:
    """A chat to train on: the last message, the assistant's, is the completion."""

    messages: tuple[dict[str, str], ...]
    """Each has a "role", one of `ROLES`, and a "content"."""

    @property
    def asked(self) -> str:
        """The last of the user's messages."""
        said = [message["content"] for message in self.messages if message["role"] == "user"]
        return said[-1] if said else ""


@dataclass(frozen=True)
class Example:
    """A text to train on: a prompt and its completion."""

    prompt: str
    completion: str

    @property
    def asked(self) -> str:
        """The prompt."""
        return self.prompt

    def chat(self) -> Chat:
        """The same as a chat: the prompt is the user's message, the completion the assistant's."""
        return Chat((_message("user", self.prompt), _message("assistant", self.completion)))


@dataclass(frozen=True)
class Pair:
    """Two completions of a prompt, the preferred and the rejected one."""

    prompt: str
    chosen: str
    rejected: str

    def examples(self) -> tuple[Example, Example]:
        """The prompt with the preferred completion, and with the rejected one."""
        return Example(self.prompt, self.chosen), Example(self.prompt, self.rejected)


@dataclass(frozen=True)
class ChatPair:
    """Two answers of the assistant in a chat, the preferred and the rejected one."""

    messages: tuple[dict[str, str], ...]
    """The chat before them."""
    chosen: str
    rejected: str

    def examples(self) -> tuple[Chat, Chat]:
        """The chat with the preferred answer, and with the rejected one."""
        chosen, rejected = (
            Chat((*self.messages, _message("assistant", answer)))
            for answer in (self.chosen, self.rejected)
        )
        return chosen, rejected


def read_examples(path: Path) -> list[Example | Chat]:
    """Examples from lines with "prompt" and "completion", or with "messages".

    Other fields and empty lines are ignored. Examples are in the order of the file, with
    duplicates. FileNotFoundError; ValueError for a file without examples, and, naming file and
    line, for a line that is no JSON object and for a field that is missing or of the wrong type.
    """
    return list(_read(path, _example))


def read_pairs(path: Path) -> list[Pair | ChatPair]:
    """Lines with "prompt", "chosen" and "rejected"; else as `read_examples`.

    All three are texts or lists of messages. With messages, the prompt may also be called
    "messages"; "chosen" and "rejected" are the answers alone (an answer may be a text), or whole
    chats that differ in their last message.
    """
    return list(_read(path, _pair))


def write_examples(path: Path, examples: Iterable[Example | Chat | Pair | ChatPair]) -> None:
    """Write a file that `read_examples` or `read_pairs` reads."""
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(asdict(example), ensure_ascii=False) + "\n")


def _example(line: dict[str, Any]) -> Example | Chat:
    """The example on a line; ValueError if it is none."""
    if "messages" not in line:
        return Example(*_texts(line, "prompt", "completion"))
    messages = _messages(line, "messages")
    if messages[-1]["role"] != "assistant":
        raise ValueError("the last message must be the assistant's: it is the completion")
    return Chat(messages)


def _pair(line: dict[str, Any]) -> Pair | ChatPair:
    """ValueError if it is none."""
    asked = "messages" if "messages" in line else "prompt"
    values = [line.get(name) for name in (asked, "chosen", "rejected")]
    if not any(isinstance(value, list) for value in values):
        return Pair(*_texts(line, asked, "chosen", "rejected"))
    (*before, chosen), (*same, rejected) = (
        _whole_chat(line, asked, name) for name in ("chosen", "rejected")
    )
    if before != same:
        raise ValueError('the chats "chosen" and "rejected" differ before their last message')
    for name, message in {"chosen": chosen, "rejected": rejected}.items():
        if message["role"] != "assistant":
            raise ValueError(f'the last message of "{name}" must be the assistant\'s')
    if not before:
        raise ValueError('"prompt" is missing, and the chats have a message alone')
    return ChatPair(tuple(before), chosen["content"], rejected["content"])


def _whole_chat(line: dict[str, Any], asked: str, name: str) -> tuple[dict[str, str], ...]:
    """The messages of a prompt and of an answer, which may have the prompt's before it."""
    if isinstance(line.get(name), list):
        answer = _messages(line, name)
        if answer[0]["role"] != "assistant" or asked not in line:
            return answer
    else:
        answer = (_message("assistant", *_texts(line, name)),)
    if isinstance(line.get(asked), list):
        return (*_messages(line, asked), *answer)
    return (_message("user", *_texts(line, asked)), *answer)


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _messages(line: dict[str, Any], name: str) -> tuple[dict[str, str], ...]:
    """The messages under a name; ValueError if they are none."""
    messages = line[name]
    if not isinstance(messages, list) or not messages:
        raise ValueError(f'"{name}" must be a list with a message in it')
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            raise ValueError(f"message {i} must be an object with role and content")
        role, _ = _texts(message, "role", "content", of=f" of message {i}")
        if role not in ROLES:
            raise ValueError(f"the role of message {i} is {role!r}: give one of {', '.join(ROLES)}")
    return tuple({key: m[key] for key in ("role", "content")} for m in messages)


def _texts(line: dict[str, Any], *names: str, of: str = "") -> list[str]:
    """The texts under those names; ValueError if one is missing or no text."""
    for name in names:
        if name not in line:
            has = ", ".join(map(repr, line)) or "none"
            raise ValueError(f'"{name}"{of} is missing; the fields there are: {has}')
        if not isinstance(line[name], str):
            raise ValueError(f'"{name}"{of} must be a text, and is {json.dumps(line[name])[:80]}')
    return [line[name] for name in names]


def _read(path: Path, parse: Callable[[dict[str, Any]], E]) -> Iterator[E]:
    """Every line's example; ValueError naming the file and line."""
    n_examples = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                line = json.loads(raw.decode("utf-8-sig" if number == 1 else "utf-8"))
                if not isinstance(line, dict):
                    raise ValueError(f"not a JSON object but {type(line).__name__}")
                example = parse(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
            n_examples += 1
            yield example
    if not n_examples:
        raise ValueError(f"{path} has no examples: it is empty")
