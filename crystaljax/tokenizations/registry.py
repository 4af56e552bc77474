"""Tokenizations by name, or from a user's file, and their options.

A specification is one word that fits into a command line, a sweep and a table: a name, or
FILE.py:CLASS for a text format of a user's own, and after a colon options that are not the
default, as Python writes them: `wyckoff-bins:coordinate_width=0.002,length_width=0.02`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, cast, get_args, get_origin, get_type_hints

from crystaljax import user_code
from crystaljax.tokenizations.base import TextFormat, Tokenization

Kind = Literal["hybrid", "text"]

DEFAULT_FORMAT = "wyckoff-text"


class _Entry(NamedTuple):
    """A tokenization of the package, imported on first use."""

    kind: Kind
    source: str


_TEXT = "crystaljax.tokenizations.text"
_TOKENIZATIONS = {
    "wyckoff": _Entry("hybrid", "crystaljax.tokenizations.wyckoff:WyckoffTokenization"),
    "wyckoff-text": _Entry("text", f"{_TEXT}.wyckoff:WyckoffText"),
    "plaid": _Entry("text", f"{_TEXT}.plaid:PlaidText"),
    "cif": _Entry("text", f"{_TEXT}.cif:CifText"),
    "site-symmetry": _Entry("text", f"{_TEXT}.site_symmetry:SiteSymmetryText"),
    "wyckoff-bins": _Entry("text", f"{_TEXT}.bins:WyckoffBins"),
    "coordinates": _Entry("text", f"{_TEXT}.coordinates:CoordinatesText"),
    "p1-bins": _Entry("text", f"{_TEXT}.bins:P1Bins"),
}

_METHODS = ("encode", "decode", "pattern")


def tokenization_names(kind: Kind | None = None) -> tuple[str, ...]:
    """Names for `create_tokenization`, of both kinds or of one."""
    return tuple(name for name, entry in _TOKENIZATIONS.items() if kind in (None, entry.kind))


def kind_of(specification: str) -> Kind:
    """Kind of a tokenization: the Wyckoff transformer's hybrid sequence, or a text format.

    ValueError for a name that is not known.
    """
    name, _ = read_specification(specification)
    if _is_file(name):
        return "text"
    if name not in _TOKENIZATIONS:
        known = ", ".join(_TOKENIZATIONS)
        raise ValueError(f"no tokenization is named {name!r}: choose {known}, or FILE.py:CLASS")
    return _TOKENIZATIONS[name].kind


def create_tokenization(specification: str, **options: Any) -> Tokenization[Any]:
    """The tokenization of a specification (see the module's docstring).

    `options` override those of the specification. A file is run: give only files that you trust. A
    class from a file is tested on a few crystals, which it must encode and decode again.

    Errors: ValueError for an unknown name, a file without the class, a class without encode, decode
    or pattern, unknown options or options of another type, and a class whose decode or pattern
    contradicts its encode; FileNotFoundError; any error that the file raises.
    """
    kind_of(specification)
    name, given = read_specification(specification)
    if not _is_file(name):
        module, _, class_name = _TOKENIZATIONS[name].source.partition(":")
        made = getattr(importlib.import_module(module), class_name)
        return cast(Tokenization[Any], _made(name, made, given | options))
    made = user_code.load(name, "class")
    missing = [method for method in _METHODS if not callable(getattr(made, method, None))]
    if missing:
        raise ValueError(
            f"{name} is no text format: it lacks {' and '.join(missing)} (see"
            " crystaljax.tokenizations.base.TextFormat)"
        )
    from crystaljax.tokenizations.probes import check_format

    format = _made(name, made, given | options)
    check_format(name, format)
    return cast(Tokenization[Any], format)


def create_format(specification: str = DEFAULT_FORMAT, **options: Any) -> TextFormat:
    """The text format of a specification; see `create_tokenization`.

    Also ValueError for a tokenization that is not a text format.
    """
    if kind_of(specification) != "text":
        raise ValueError(
            f"{specification} is the sequence of the Wyckoff transformer, no text format: choose"
            f" {', '.join(tokenization_names('text'))}, or FILE.py:CLASS"
        )
    return cast(TextFormat, create_tokenization(specification, **options))


def format_options(tokenization: Any) -> dict[str, Any]:
    """Options of a tokenization by name, defaults included, so that it can be made again.

    ValueError for a user's class that takes options but does not have them as attributes.
    """
    made = type(tokenization)
    takes = inspect.signature(made).parameters
    told = {f.name for f in fields(made)} if is_dataclass(made) else set()
    if untold := [name for name in takes if name not in told]:
        raise ValueError(
            f"{made.__name__} takes options but does not have them as attributes"
            f" ({', '.join(untold)}): make it a dataclass with these fields, so that they can be"
            " stored with a model"
        )
    return {name: getattr(tokenization, name) for name in takes}


def read_specification(specification: str) -> tuple[str, dict[str, Any]]:
    """Name (or FILE.py:CLASS) and options of a specification.

    ValueError for options that are not written as key=value.
    """
    name, colon, rest = specification.rpartition(":")
    if not colon or "=" not in rest:
        return specification, {}
    options: dict[str, Any] = {}
    for item in rest.split(","):
        key, equals, value = item.partition("=")
        if not equals or not key.isidentifier() or key in options:
            raise ValueError(f"{specification}: write options as key=value,key=value, each once")
        options[key] = _literal(value)
    return name, options


def _literal(text: str) -> Any:
    """The value of a Python literal; other texts as they are."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _is_file(name: str) -> bool:
    return ":" in name or name.endswith(".py")


def _made(name: str, made: Any, options: Mapping[str, Any]) -> Any:
    """An instance; ValueError for options that the class does not take."""
    takes = inspect.signature(made).parameters
    try:
        inspect.signature(made).bind(**options)
    except TypeError as error:
        known = ", ".join(takes) or "none"
        raise ValueError(f"the options of the format {name} are {known}: {error}") from error
    hints = get_type_hints(made if is_dataclass(made) else made.__init__)
    for key, value in options.items():
        hint = hints.get(key, object)
        allowed = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        if not any(_fits(value, each) for each in allowed):
            types = str(hint) if len(allowed) > 1 else hint.__name__
            raise ValueError(f"the option {key} of the format {name} is {types}, not {value!r}")
    return made(**options)


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value fits a type hint: an int is also a float, but a bool is not a number."""
    if hint is Any or not isinstance(hint, type) or get_origin(hint) is not None:
        return True
    if isinstance(value, bool):
        return hint in (bool, object)
    return isinstance(value, (int, float) if hint is float else hint)
