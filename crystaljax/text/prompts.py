"""Prompt templates: texts with {fields}, kept as data."""

from __future__ import annotations

import string
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

from crystaljax.text.examples import Chat, Example

FOLDER = Path(__file__).with_name("templates")
"""The templates that crystaljax ships, one TOML file each."""


@dataclass(frozen=True)
class PromptTemplate:
    """Template of prompts and of their answers.

    In `system`, `user` and `completion`, {name} stands for the value of a field, {name:.1f} for it
    formatted as Python does; {{ and }} are braces. ValueError for a text that is not of this form.
    """

    name: str
    """Its name."""
    user: str
    """The request."""
    completion: str
    """The answer's form."""
    system: str = ""
    """System prompt; may be empty."""

    def __post_init__(self) -> None:
        for field in ("system", "user", "completion"):
            try:
                names = _field_names(getattr(self, field))
            except ValueError as error:
                raise self._error(f"{field}: {error}") from error
            for name in names:
                if not name.isidentifier():
                    raise self._error(f"{field}: {{{name}}} names no field; write braces {{{{ }}}}")

    @property
    def prompt_fields(self) -> frozenset[str]:
        """The fields that a prompt needs."""
        return frozenset(_field_names(self.system + self.user))

    @property
    def fields(self) -> frozenset[str]:
        """The fields that an example needs."""
        return self.prompt_fields.union(_field_names(self.completion))

    def prompt(self, values: Mapping[str, object]) -> str:
        """The prompt for a model that goes on with a text. ValueError naming a missing field."""
        parts = [self._filled(part, values) for part in (self.system, self.user) if part]
        return "\n\n".join(parts) + "\n"

    def messages(self, values: Mapping[str, object]) -> tuple[dict[str, str], ...]:
        """The prompt for a model that chats, as a system message, if any, and the user's."""
        parts = {"system": self.system, "user": self.user}
        return tuple(
            {"role": role, "content": self._filled(part, values)}
            for role, part in parts.items()
            if part
        )

    def example(self, values: Mapping[str, object]) -> Example:
        """A prompt with its completion, to learn from."""
        return Example(self.prompt(values), self._filled(self.completion, values))

    def chat(self, values: Mapping[str, object]) -> Chat:
        """A chat with the completion as the assistant's message, to learn from."""
        answer = {"role": "assistant", "content": self._filled(self.completion, values)}
        return Chat((*self.messages(values), answer))

    def _filled(self, text: str, values: Mapping[str, object]) -> str:
        """ValueError naming a missing field, or one whose value cannot be formatted so."""
        for name in _field_names(text):
            if name not in values:
                given = ", ".join(map(repr, values)) or "none"
                raise self._error(f"the field {name!r} is missing; those given are: {given}")
        try:
            return text.format_map(values)
        except (ValueError, TypeError) as error:
            raise self._error(f"a value cannot be formatted as asked: {error}") from error

    def _error(self, message: str) -> ValueError:
        return ValueError(f"prompt template {self.name!r}: {message}")


def load_template(name: str | Path) -> PromptTemplate:
    """A shipped template by its name, or one of the user's by the path of its TOML file.

    The file has the texts `user`, `completion` and, if wanted, `system`; its name is the
    template's. ValueError for an unknown name or a malformed file, FileNotFoundError for no such
    file.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in template_names():
            raise ValueError(
                f"no prompt template {str(name)!r}: there are {', '.join(template_names())}; or "
                "give the path of a .toml file"
            )
        path = FOLDER / f"{name}.toml"
    with path.open("rb") as file:
        try:
            content = tomllib.load(file)
        except ValueError as error:
            raise ValueError(f"{path} is no TOML: {error}") from error
    known = {field.name for field in fields(PromptTemplate)} - {"name"}
    for key, value in content.items():
        if key not in known:
            raise ValueError(f"{path}: unknown key {key!r}: there are {', '.join(sorted(known))}")
        if not isinstance(value, str):
            raise ValueError(f"{path}: {key} must be a text, and is {value!r}")
    for key in ("user", "completion"):
        if key not in content:
            raise ValueError(f"{path}: {key} is missing")
    return PromptTemplate(path.stem, **content)


def template_names() -> list[str]:
    """The templates that crystaljax ships."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def _field_names(text: str) -> list[str]:
    """The names in braces; ValueError for a brace that is not closed, or not open."""
    found = []
    for _, name, specification, _ in string.Formatter().parse(text):
        if name is not None:
            if "{" in (specification or ""):
                raise ValueError(f"a field within a field: {{{name}:{specification}}}")
            found.append(name)
    return found
