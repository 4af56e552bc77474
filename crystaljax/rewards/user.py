"""Rewards that users write as a plain Python function, found by name or in a file."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from crystaljax import user_code
from crystaljax.crystal import Crystals
from crystaljax.rewards.base import Reasons, Reward, RewardBatch, RewardError, register
from crystaljax.rewards.bounds import UNBOUNDED, Quantity, RewardBounds, quantity_of
from crystaljax.rewards.compose import PASSING, Guarded, ValidOnly, failure
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.serving import ServedReward
from crystaljax.structures import to_structures

Function = Callable[..., Any]


@dataclass(frozen=True)
class OfStructures:
    """A reward by a function of one pymatgen structure (the conventional cell) that returns a
    number.

    A crystal that has no structure (no atoms, no cell), or for which the function raises, is not
    ok. `options` go to the function.
    """

    function: Function
    options: dict[str, Any]

    @property
    def quantity(self) -> Quantity:
        """The function's."""
        return _quantity(self.function)

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        n = len(crystals)
        value, transient = np.full(n, np.nan), np.zeros(n, bool)
        reasons: Reasons = ["no structure"] * n
        for row, structure in enumerate(to_structures(crystals)):
            if structure is None:
                continue
            try:
                value[row] = _number(self.function, self.function(structure, **self.options))
                reasons[row] = None
            except PASSING:
                raise
            except BaseException as error:  # noqa: BLE001 (see `Guarded`; so each is called once)
                reasons[row], transient[row] = failure(error)
        return RewardBatch.from_values(value, None, reasons, transient)


@dataclass(frozen=True)
class OfCrystals:
    """A reward by a function of B `Crystals` that returns B numbers, or a `RewardBatch`."""

    function: Function
    options: dict[str, Any]

    @property
    def quantity(self) -> Quantity:
        """The function's."""
        return _quantity(self.function)

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals; RewardError if the function returns another number of them."""
        result = self.function(crystals, **self.options)
        if isinstance(result, RewardBatch):
            return result
        value = np.asarray(result, np.float64)
        if value.shape != (len(crystals),):
            raise RewardError(
                f"{_name(self.function)} returned an array of shape {value.shape} for"
                f" {len(crystals)} crystals: return one number each"
            )
        return RewardBatch.from_values(value)


def _name(function: Function) -> str:
    return getattr(function, "__name__", repr(function))


def _quantity(function: Function) -> Quantity:
    """The quantity that the decorator `reward` gave to a function, else its name only."""
    return getattr(function, "quantity", None) or Quantity(_name(function))


def _number(function: Function, result: Any) -> float:
    if np.ndim(result):
        raise TypeError(
            f"{_name(function)} returned {type(result).__name__}: return one number, or annotate"
            " its argument as Crystals to judge a batch at once"
        )
    return float(result)


def from_function(function: Function, **options: Any) -> Reward:
    """The reward by a user's function; the annotation of its first argument says what it judges.

    Annotated `Crystals`, it gets a batch and returns an array of one number each; otherwise it gets
    one pymatgen `Structure` and returns a number. `options` are its other arguments. It gets valid
    structures only (`ValidOnly`), and an item for which it raises is not ok (`Guarded`). Its values
    are not bounded; see `reward`. ValueError, at once, if it does not take these arguments.
    """
    try:
        inspect.signature(function).bind(object(), **options)
    except TypeError as error:
        raise ValueError(
            f"{_name(function)} must take a Structure or Crystals, and the options"
            f" {sorted(options)}: {error}"
        ) from error
    first = next(iter(inspect.signature(function).parameters.values()))
    of_batch = first.annotation is Crystals or (
        isinstance(first.annotation, str) and first.annotation.split(".")[-1] == "Crystals"
    )
    return Guarded(ValidOnly((OfCrystals if of_batch else OfStructures)(function, options)))


def reward(
    name: str, unit: str = "", bounds: RewardBounds = UNBOUNDED
) -> Callable[[Function], Function]:
    """Decorator: make a function a reward known by `name`; see `from_function`.

        @reward("density", unit="g/cm³")
        def density(structure):
            return structure.density

    Then `create("density")` is a reward. Reports show its unit, and training keeps its values
    within `bounds`, if given. ValueError if the name is taken.
    """

    def decorate(function: Function) -> Function:
        def factory(**options: Any) -> Reward:
            return from_function(function, **options)

        factory.__module__ = function.__module__
        factory.__qualname__ = function.__qualname__
        register(name)(factory)
        function.quantity = Quantity(name, unit, bounds)  # type: ignore[attr-defined]
        return function

    return decorate


def load_reward(source: str, **options: Any) -> Reward:
    """The reward by a function in a Python file, given as "path/to/file.py:function".

    The file is run: load none that you do not trust. `options` as in `from_function`.
    Errors: see `user_code.load`.
    """
    return from_function(user_code.load(source, "function"), **options)


class UserReward(ServedReward):
    """The reward by a function in a Python file (`load_reward`), optionally with workers and a
    cache.

    Use it as a context manager, or `close` it, so that workers end. Results in the cache belong to
    the function's name and the code of its file (`user_code.digest`). Errors: see `load_reward`,
    `Pool`.
    """

    def __init__(self, source: str, pool: PoolConfig, cache: Path | None) -> None:
        path, name = user_code.split(source, "function")
        source = f"{path.resolve()}:{name}"  # workers may start elsewhere
        here = load_reward(source)  # also tells mistakes in the file before workers start
        self.quantity = quantity_of(here)

        def identity() -> str:
            return f"user {name} {user_code.digest(path)}"

        super().__init__(lambda: here, partial(load_reward, source), pool, cache, identity)

    def __call__(self, crystals: Crystals, /) -> RewardBatch:
        """Rewards of B crystals."""
        return self.served(crystals)
