"""The reward interface, and the registry that finds rewards by name."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np

from crystaljax.crystal import Crystals, Index
from crystaljax.errors import UserError

Reasons = list[str | None]
"""Reasons that items failed; None for those that did not."""

Factory = TypeVar("Factory", bound=Callable[..., Any])


@dataclass(frozen=True)
class RewardBatch:
    """Rewards of B items."""

    value: np.ndarray
    """float64 [B]: the larger the better; nan where `ok` is False."""
    ok: np.ndarray
    """bool [B]: whether the item could be judged; never where the value is not finite."""
    info: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Arrays [B] of further results, for logs and tables; each reward documents their units."""
    reasons: Reasons = field(default_factory=list)
    """Reason that each item is not ok, None where it is."""
    transient: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    """bool [B]: failures of the machine, not of the item (a worker that died, no memory left), so
    that another try may succeed; all False by default."""

    def __post_init__(self) -> None:
        value, ok = np.asarray(self.value, np.float64), np.asarray(self.ok, bool)
        if value.ndim != 1:
            raise ValueError(f"the values of a reward have the shape {value.shape}, not [B]")
        n = len(value)
        reasons: Reasons = list(self.reasons) or [None if x else "unknown" for x in ok]
        transient = self.transient if len(self.transient) else np.zeros(n, bool)
        lengths = {"ok": len(ok), "reasons": len(reasons), "transient": len(transient)}
        lengths |= {name: len(column) for name, column in self.info.items()}
        for name, length in lengths.items():
            if length != n:
                raise ValueError(f"a reward of {n} values has {length} entries in {name!r}")
        for row in np.flatnonzero(ok & ~np.isfinite(value)):
            reasons[row] = f"the reward is {value[row]}"
        ok = ok & np.isfinite(value)
        for name, content in {
            "value": value,
            "ok": ok,
            "reasons": reasons,
            "transient": np.asarray(transient, bool),
        }.items():
            object.__setattr__(self, name, content)

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, rows: Index) -> RewardBatch:
        """The rewards of some items, by an index array, a mask or a slice."""
        return RewardBatch(
            self.value[rows],
            self.ok[rows],
            {key: np.asarray(column)[rows] for key, column in self.info.items()},
            np.array(self.reasons, object)[rows].tolist(),
            self.transient[rows],
        )

    @staticmethod
    def concatenate(batches: Sequence[RewardBatch]) -> RewardBatch:
        """Join batches. If one lacks a key of `info`, the column is filled by `nothing`."""
        if not batches:
            raise ValueError("nothing to concatenate: the list of batches is empty")
        keys = dict.fromkeys(key for batch in batches for key in batch.info)
        return RewardBatch(
            np.concatenate([batch.value for batch in batches]),
            np.concatenate([batch.ok for batch in batches]),
            {key: _joined_column(batches, key) for key in keys},
            [reason for batch in batches for reason in batch.reasons],
            np.concatenate([batch.transient for batch in batches]),
        )

    def spread(self, rows: np.ndarray, reasons: Sequence[str | None]) -> RewardBatch:
        """These rewards as rows `rows` (int) of a batch of B items; the other items failed.

        `reasons` [B] say why; their info is filled by `nothing`.
        """
        n, why = len(reasons), list(reasons)
        for row, reason in zip(rows, self.reasons, strict=True):
            why[row] = reason

        def placed(column: Any) -> np.ndarray:
            column = np.asarray(column)
            found = nothing(column, n)
            found[rows] = column
            return found

        info = {name: placed(column) for name, column in self.info.items()}
        return RewardBatch.from_values(placed(self.value), info, why, placed(self.transient))

    def failures(self) -> dict[str, int]:
        """Number of items that failed for each reason, the most frequent first."""
        return dict(Counter(reason for reason in self.reasons if reason).most_common())

    @staticmethod
    def from_values(
        value: np.ndarray,
        info: Mapping[str, np.ndarray] | None = None,
        reasons: Reasons | None = None,
        transient: np.ndarray | None = None,
    ) -> RewardBatch:
        """A batch from values [B]; items with a reason or without a finite value are not ok."""
        value = np.asarray(value, np.float64)
        reasons = [None] * len(value) if reasons is None else list(reasons)
        for row in np.flatnonzero(~np.isfinite(value)):
            reasons[row] = reasons[row] or f"the reward is {value[row]}"
        ok = np.array([reason is None for reason in reasons], bool)
        transient = np.zeros(len(value), bool) if transient is None else transient
        return RewardBatch(np.where(ok, value, np.nan), ok, info or {}, reasons, transient)


def nothing(column: np.ndarray, n: int) -> np.ndarray:
    """n entries for items without a value, of the dtype of a column of `info`.

    nan in columns of floats, "" in columns of texts, and False, 0 or None in others.
    """
    fills: dict[str, Any] = {"f": np.nan, "c": np.nan, "U": "", "S": b"", "O": None}
    return np.full((n, *column.shape[1:]), fills.get(column.dtype.kind, 0), column.dtype)


def _joined_column(batches: Sequence[RewardBatch], key: str) -> np.ndarray:
    """One column of `info` over all batches."""
    example = next(np.asarray(batch.info[key]) for batch in batches if key in batch.info)
    return np.concatenate(
        [
            np.asarray(batch.info[key]) if key in batch.info else nothing(example, len(batch))
            for batch in batches
        ]
    )


class RewardError(UserError):
    """A failure of the whole computation of rewards, such as its cache, and not of an item.

    Apart from an interrupt, the only exception that `compose.Guarded` lets through.
    """


@runtime_checkable
class Reward(Protocol):
    """A function that judges a batch; an item it cannot judge gets ok=False and a reason.

    An attribute `quantity` may say what it measures; see `bounds.Quantity`.
    """

    def __call__(self, crystals: Crystals, /) -> RewardBatch:
        """Rewards of B crystals."""
        ...


_FACTORIES: dict[str, Callable[..., Reward]] = {}
# Where the rewards that come with the package are registered, imported when first asked for.
_BUILT_IN = {
    "e_above_hull": "crystaljax.rewards.ehull",
    "property": "crystaljax.rewards.property",
    "target_value": "crystaljax.rewards.property",
    "target_range": "crystaljax.rewards.property",
    "figure_of_merit": "crystaljax.rewards.property",
}


def register(name: str) -> Callable[[Factory], Factory]:
    """Decorator: make a reward class, or a function that returns a reward, known by `name`.

    ValueError if another factory has the name already.
    """

    def decorate(factory: Factory) -> Factory:
        holder = _FACTORIES.get(name)
        if holder is not None and _identity(holder) != _identity(factory):
            raise ValueError(f"a reward named {name!r} is registered already ({holder!r})")
        _FACTORIES[name] = factory
        return factory

    return decorate


def _identity(factory: Callable[..., Any]) -> tuple[str, str]:
    """Module and name, which a reloaded module keeps."""
    return getattr(factory, "__module__", ""), getattr(factory, "__qualname__", repr(factory))


def registered() -> list[str]:
    """Names that `create` knows."""
    return sorted({*_FACTORIES, *_BUILT_IN})


def create(name: str, **options: Any) -> Reward:
    """Make the reward registered as `name`; ValueError listing the names if there is none."""
    if name not in _FACTORIES and name in _BUILT_IN:
        importlib.import_module(_BUILT_IN[name])
    if name not in _FACTORIES:
        known = ", ".join(registered())
        raise ValueError(
            f"no reward is named {name!r}: choose one of {known}, or import the module that"
            " registers it"
        )
    return _FACTORIES[name](**options)
