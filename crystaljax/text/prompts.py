"""Prompt templates: texts with {fields}, stored as data."""

from __future__ import annotations

import string
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from crystaljax.text.examples import Chat, Example

FOLDER = Path(__file__).with_name("templates")
"""The templates that crystaljax ships, one TOML file each."""

CLAUSES = "clauses"
"""The field of `user` that stands for the clauses of a prompt."""


@dataclass(frozen=True)
class PromptTemplate:
    """Template of prompts and of their answers.

    In `system`, `user`, `completion` and clauses, {name} stands for the value of a field, and
    {name:.1f} for the value formatted as in Python; {{ and }} are braces. A template with clauses
    makes many prompts: each has some of the clauses, in their order, in place of {clauses} in
    `user`; see `saying`. ValueError for a text that is not of this form.
    """

    name: str
    """Its name."""
    user: str
    """The request."""
    completion: str
    """The answer's form."""
    system: str = ""
    """System prompt; may be empty."""
    clauses: tuple[str, ...] = ()
    """Parts of prompts that may be left out, such as ", space group {space_group}"."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "clauses", tuple(self.clauses))
        texts = {field: getattr(self, field) for field in ("system", "user", "completion")}
        texts |= {f"clause {i}": clause for i, clause in enumerate(self.clauses, 1)}
        n_places = 0
        for field, text in texts.items():
            try:
                names = _field_names(text)
            except ValueError as error:
                raise self._error(f"{field}: {error}") from error
            for name in names:
                if not name.isidentifier():
                    raise self._error(f"{field}: {{{name}}} names no field; write braces {{{{ }}}}")
            if field.startswith("clause") and not names:
                raise self._error(f"{field}: {text!r} has no field")
            n_places += names.count(CLAUSES)
        if self.clauses and not n_places == self.user.count(f"{{{CLAUSES}}}") == 1:
            raise self._error(f"user must have {{{CLAUSES}}}, once, where the clauses are to stand")
        if n_places and not self.clauses:
            raise self._error(f"{{{CLAUSES}}} stands for clauses, and it has none")

    @property
    def prompt_fields(self) -> frozenset[str]:
        """The fields that every prompt needs."""
        return frozenset(_field_names(self.system + self.user)) - {CLAUSES}

    @property
    def clause_fields(self) -> tuple[frozenset[str], ...]:
        """The fields that each clause needs."""
        return tuple(frozenset(_field_names(clause)) for clause in self.clauses)

    @property
    def n_clauses_min(self) -> int:
        """Smallest number of clauses: one if the prompt asks for nothing without them, else 0."""
        return int(bool(self.clauses) and not self.prompt_fields)

    @property
    def content(self) -> dict[str, Any]:
        """Its fields as a dictionary; without clauses if it has none."""
        found = asdict(self)
        if not self.clauses:
            del found[CLAUSES]
        return found

    def saying(self, which: Iterable[int]) -> PromptTemplate:
        """The template whose prompts have exactly the clauses with these indices."""
        return _saying(self, tuple(sorted(which))) if self.clauses else self

    @property
    def fields(self) -> frozenset[str]:
        """The fields that an example needs."""
        return self.prompt_fields.union(_field_names(self.completion))

    def prompt(self, values: Mapping[str, object]) -> str:
        """The prompt for a model that continues a text. ValueError naming a missing field."""
        parts = [self._filled(part, values) for part in (self.system, self.user) if part]
        return "\n\n".join(parts) + "\n"

    def messages(self, values: Mapping[str, object]) -> tuple[dict[str, str], ...]:
        """The prompt for a chat model: a system message, if any, and the user's message."""
        parts = {"system": self.system, "user": self.user}
        return tuple(
            {"role": role, "content": self._filled(part, values)}
            for role, part in parts.items()
            if part
        )

    def example(self, values: Mapping[str, object]) -> Example:
        """A training example: a prompt with its completion."""
        return Example(self.prompt(values), self._filled(self.completion, values))

    def chat(self, values: Mapping[str, object]) -> Chat:
        """A training chat, with the completion as the assistant's message."""
        answer = {"role": "assistant", "content": self._filled(self.completion, values)}
        return Chat((*self.messages(values), answer))

    def _filled(self, text: str, values: Mapping[str, object]) -> str:
        """A text with its fields filled in.

        ValueError naming a missing field, or one whose value cannot be formatted as asked.
        """
        if self.clauses:
            raise self._error("its clauses are not chosen yet: PromptTemplate.saying does")
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
    """A shipped template by its name, or a template of one's own by the path of its TOML file.

    The file has the texts `user`, `completion` and, optionally, `system`, and `clauses`, a list of
    texts. The template's name is that of the file. ValueError for an unknown name or a malformed
    file, FileNotFoundError.
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
        if key == CLAUSES:
            if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
                raise ValueError(f"{path}: {key} must be a list of texts, and is {value!r}")
        elif not isinstance(value, str):
            raise ValueError(f"{path}: {key} must be a text, and is {value!r}")
    for key in ("user", "completion"):
        if key not in content:
            raise ValueError(f"{path}: {key} is missing")
    return PromptTemplate(path.stem, **content)


def template_names() -> list[str]:
    """The templates that crystaljax ships."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


@lru_cache(maxsize=1 << 12)
def _saying(template: PromptTemplate, which: tuple[int, ...]) -> PromptTemplate:
    """See `PromptTemplate.saying`."""
    text = "".join(template.clauses[i] for i in which)
    return replace(template, user=template.user.replace(f"{{{CLAUSES}}}", text), clauses=())


@lru_cache(maxsize=1 << 12)
def _field_names(text: str) -> tuple[str, ...]:
    """The names in braces; ValueError for a brace that is not closed, or not open."""
    found = []
    for _, name, specification, _ in string.Formatter().parse(text):
        if name is not None:
            if "{" in (specification or ""):
                raise ValueError(f"a field within a field: {{{name}:{specification}}}")
            found.append(name)
    return tuple(found)
