"""Examples to learn from, in JSONL files: one JSON object a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

ROLES = ("system", "user", "assistant")
"""Who may speak in a chat."""

E = TypeVar("E")


@dataclass(frozen=True)
class Example:
    """A text to learn: how it starts, and how it should go on."""

    prompt: str
    completion: str


@dataclass(frozen=True)
class Chat:
    """A chat to learn: the last message is the assistant's, and is what is learnt."""

    messages: tuple[dict[str, str], ...]
    """Each has a "role", one of `ROLES`, and a "content"."""


@dataclass(frozen=True)
class Pair:
    """Two completions of a prompt, of which one is the better."""

    prompt: str
    chosen: str
    rejected: str


def read_examples(path: Path) -> list[Example | Chat]:
    """Lines with "prompt" and "completion", or with "messages"; other fields are passed over.

    In the order of the file, duplicates kept; empty lines are passed over. FileNotFoundError for
    no such file; ValueError naming the file and the line for what is no JSON object, a field that
    is missing or of the wrong type, and for a file without examples.
    """
    return list(_read(path, _example))


def read_pairs(path: Path) -> list[Pair]:
    """Lines with "prompt", "chosen" and "rejected"; else as `read_examples`."""
    return list(_read(path, lambda line: Pair(*_texts(line, "prompt", "chosen", "rejected"))))


def write_examples(path: Path, examples: Iterable[Example | Chat | Pair]) -> None:
    """Write what `read_examples` or `read_pairs` reads."""
    with path.open("w", encoding="utf-8") as file:
        for example in examples:
            file.write(json.dumps(asdict(example), ensure_ascii=False) + "\n")


def _example(line: dict[str, Any]) -> Example | Chat:
    """ValueError if it is none."""
    if "messages" not in line:
        return Example(*_texts(line, "prompt", "completion"))
    messages = line["messages"]
    if not isinstance(messages, list) or not messages:
        raise ValueError('"messages" must be a list with a message in it')
    for i, message in enumerate(messages):
        if not isinstance(message, dict):
            raise ValueError(f"message {i} must be an object with role and content")
        role, _ = _texts(message, "role", "content", of=f" of message {i}")
        if role not in ROLES:
            raise ValueError(f"the role of message {i} is {role!r}, none of {', '.join(ROLES)}")
    if messages[-1]["role"] != "assistant":
        raise ValueError("the last message must be the assistant's: it is what is learnt")
    return Chat(tuple({key: m[key] for key in ("role", "content")} for m in messages))


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
