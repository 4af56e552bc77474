"""Settings of experiments as plain JSON, nested or by dotted names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any


def plain(value: Any, left_out: Collection[str] = ()) -> Any:
    """Settings as JSON has them, without the fields of some names at any depth."""
    if isinstance(value, Mapping):
        kept = {str(k): v for k, v in value.items() if k not in left_out}
        return {name: plain(x, left_out) for name, x in kept.items()}
    if isinstance(value, list | tuple):
        return [plain(x, left_out) for x in value]
    return value if isinstance(value, str | bool | int | float | None) else str(value)


def defaults(config: Any) -> dict[str, Any]:
    """Default of each field that has one, of a dataclass and of those in it."""
    found: dict[str, Any] = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if is_dataclass(value):
            found[field.name] = defaults(value)
        elif field.default is not MISSING:
            found[field.name] = field.default
        elif field.default_factory is not MISSING:
            found[field.name] = field.default_factory()
    return found


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        deeper = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{name}.") if deeper else {prefix + name: value}
    return found
