"""Guards against misleading rewards: these are not believed, or count for less.

Guards act after the reward, its pool and its cache, which hold the reward's own values. They are
given as NAME or NAME:NUMBER, or FILE.py:NAME for one's own, and act in this order: each sees only
what the ones before it believed.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from crystaljax import user_code
from crystaljax.composition import element_counts
from crystaljax.crystal import Crystals
from crystaljax.rewards.asked import Asked, fitting
from crystaljax.rewards.base import Reasons, Reward, RewardBatch
from crystaljax.rewards.believable import MAX_BELOW, MIN_KNOWN, known_system, not_too_good
from crystaljax.rewards.bounds import Quantity
from crystaljax.rewards.ehull import E_ABOVE_HULL
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.user import from_function

Arrays = dict[str, np.ndarray]


class Verdict(NamedTuple):
    """The shares of B rewards that a guard leaves."""

    share: np.ndarray
    """float64 [B] in [0, 1]: share that a sample keeps of its reward's distance to the penalty of
    samples that cannot be judged. With 0 it counts as one of these."""
    reasons: Reasons
    """[B]: reason for a share of 0; None for the others."""

    @staticmethod
    def of(believed: np.ndarray, reason: str) -> Verdict:
        """A verdict of all or nothing, by a mask [B], with one reason."""
        believed = np.asarray(believed, bool)
        return Verdict(believed.astype(np.float64), [None if x else reason for x in believed])


class Guard(Protocol):
    """Protocol of guards: verdicts on crystals that a reward could judge, and on their rewards.

    If it `takes_asked`, it gets crystals with their conditions and groups (`asked.Asked`).
    """

    def __call__(self, crystals: Any, judged: RewardBatch, /) -> Verdict:
        """Verdict on B crystals, all of them ok; `Crystals` or `Asked`."""
        ...


@runtime_checkable
class RemembersCrystals(Protocol):
    """A guard whose verdicts depend on the crystals of earlier calls."""

    @property
    def memory(self) -> Arrays:
        """Copies of its state as arrays, for checkpoints; none of them is empty."""

    def remember(self, memory: Arrays) -> None:
        """Restore what `memory` gave; {} for a guard that has seen nothing."""


class Guarding(NamedTuple):
    """The hull and the quantity that guards are made for."""

    hull: Hull
    """Reference hull."""
    quantity: Quantity
    """Quantity that the reward measures."""


Factory = Callable[[float | None, Guarding], Guard]
"""A guard from its number, None if none is given; ValueError if it cannot be made."""

F = TypeVar("F", bound=Factory)

_FACTORIES: dict[str, Factory] = {}
DISCOUNTS = ("seen-compositions", "seen-structures", "copies")
"""Guards that come with the package and leave a part of a reward; the others leave all or nothing.
"""

# Where those are registered, imported when first asked for.
_ELSEWHERE = dict.fromkeys(DISCOUNTS, "crystaljax.rewards.seen")


def register(name: str) -> Callable[[F], F]:
    """Decorator: make a factory of guards known by `name`; ValueError if the name is taken."""

    def decorate(factory: F) -> F:
        if name in _FACTORIES:
            raise ValueError(f"a guard named {name!r} is registered already")
        _FACTORIES[name] = factory
        return factory

    return decorate


def guard_names() -> list[str]:
    """Names that `create_guards` knows."""
    return [*dict.fromkeys([*_FACTORIES, *_ELSEWHERE])]


@dataclass(frozen=True)
class Guards:
    """Several guards, by name, in the order in which they act."""

    guards: Mapping[str, Guard]
    discounts: bool = True
    """Whether they may leave a part of a reward."""

    def __call__(
        self, crystals: Crystals | Asked, judged: RewardBatch
    ) -> tuple[RewardBatch, np.ndarray, dict[str, float]]:
        """Rewards of B crystals as far as they are believed, the shares that are kept, and metrics.

        What is not believed is not ok, with the guard and its reason. The shares, float64 [B], are
        products over the guards, for `RewardBounds`. Metrics "guard/NAME" are the shares of all
        samples that a guard rejected or discounted.

        ValueError for a part of a reward where `discounts` are not allowed.
        """
        share, metrics = np.ones(len(judged)), {}
        for name, guard in self.guards.items():
            rows = np.flatnonzero(judged.ok)
            metrics[f"guard/{name}"] = 0.0
            if not len(rows):
                continue
            verdict = guard(fitting(guard, crystals[rows]), judged[rows])
            if not self.discounts:
                _require_all_or_nothing(name, verdict.share)
            metrics[f"guard/{name}"] = float((verdict.share < 1).sum() / len(judged))
            share[rows] *= verdict.share
            judged = _without(judged, rows, verdict, name)
        return judged, share, metrics

    @property
    def fixed(self) -> Guards:
        """The guards whose verdicts do not depend on what was seen before."""
        kept = {k: x for k, x in self.guards.items() if not isinstance(x, RemembersCrystals)}
        return replace(self, guards=kept)

    @property
    def all_or_nothing(self) -> Guards:
        """The guards, which raise ValueError where they leave a part of a reward."""
        return replace(self, discounts=False)

    @property
    def memory(self) -> Arrays:
        """Arrays of all guards that remember, as "NAME/array"."""
        return {
            f"{name}/{key}": array
            for name, guard in self._remembering.items()
            for key, array in guard.memory.items()
        }

    def remember(self, memory: Mapping[str, np.ndarray]) -> None:
        """Restore what `memory` gave; ValueError for the memory of a guard that is not among
        these."""
        found: dict[str, Arrays] = {name: {} for name in self._remembering}
        for key, array in memory.items():
            name, _, rest = key.partition("/")
            if name not in found:
                raise ValueError(
                    f"the run's checkpoint has a memory of the guard {name}, which is not among"
                    f" those given ({', '.join(self.guards) or 'none'}): go on with its own guards"
                )
            found[name][rest] = array
        for name, guard in self._remembering.items():
            guard.remember(found[name])

    @property
    def _remembering(self) -> dict[str, RemembersCrystals]:
        return {k: x for k, x in self.guards.items() if isinstance(x, RemembersCrystals)}


NO_GUARDS = Guards({})


def _require_all_or_nothing(name: str, share: np.ndarray) -> None:
    parts = share[(share > 0) & (share < 1)]
    if len(parts):
        raise ValueError(
            f"the guard {name} leaves {parts[0]:g} of a reward, and discounts have no part in what"
            " is learnt here: let it return 0 (not believed) or 1"
        )


def _without(judged: RewardBatch, rows: np.ndarray, verdict: Verdict, name: str) -> RewardBatch:
    """The rewards, with `rows` without a share set to not ok."""
    ok, value, reasons = judged.ok.copy(), judged.value.copy(), list(judged.reasons)
    for row, share, reason in zip(rows, *verdict, strict=True):
        if share <= 0:
            ok[row], value[row] = False, np.nan
            reasons[row] = f"{name}: {reason or 'not believed'}"
    return replace(judged, ok=ok, value=value, reasons=reasons)


def create_guards(specifications: Sequence[str], guarding: Guarding) -> Guards:
    """New guards from NAME, NAME:NUMBER or FILE.py:NAME[:NUMBER], which have seen nothing.

    A function of a file takes a pymatgen Structure or Crystals, like a reward (see
    `user.from_function`). It returns whether a crystal is believed, or the share of its reward that
    it keeps. The number is its second argument. The file is run: load none that you do not trust.

    ValueError for an unknown or repeated name, a wrong number or one that the guard does not take,
    or a guard that does not fit the reward; FileNotFoundError; any error of the file.
    """
    guards: dict[str, Guard] = {}
    for specification in specifications:
        source, number = _read(specification)
        name = source.rpartition(":")[2]
        if name in guards:
            raise ValueError(f"the guard {name} is given twice: {' '.join(specifications)}")
        guards[name] = _create(source, number, guarding)
    return Guards(guards)


def _read(specification: str) -> tuple[str, float | None]:
    """Source and number; ValueError for a number that is not finite.

    What follows FILE.py: is a name, though Python reads nan and inf as numbers.
    """
    source, colon, last = specification.rpartition(":")
    if source.endswith(".py"):
        return specification, None
    try:
        number = float(last)
    except ValueError:
        return specification, None
    if not colon or not math.isfinite(number):
        raise ValueError(f"{specification}: write a guard as NAME or NAME:NUMBER")
    return source, number


def _create(source: str, number: float | None, guarding: Guarding) -> Guard:
    name, colon, rest = source.partition(":")
    if name in _ELSEWHERE:
        importlib.import_module(_ELSEWHERE[name])
    if name in _FACTORIES and not colon:
        return _FACTORIES[name](number, guarding)
    if name in _FACTORIES:
        raise ValueError(f"the guard {name} takes a number, not {rest!r}")
    if not colon:
        known = ", ".join(guard_names())
        raise ValueError(f"no guard is named {name!r}: choose {known}, or FILE.py:NAME")
    function = user_code.load(source, "function")
    second = list(inspect.signature(function).parameters)[1:2]
    if number is not None and not second:
        raise ValueError(f"the guard {source} takes no number: give its function a second argument")
    options = {} if number is None else {second[0]: number}
    try:
        return OfFunction(from_function(function, **options))
    except ValueError as error:
        raise ValueError(f"the guard {source} cannot be made: {error}") from error


@dataclass(frozen=True)
class OfFunction:
    """A guard by a reward whose values are shares. What the reward cannot judge is not believed."""

    reward: Reward

    def __call__(self, crystals: Crystals, judged: RewardBatch) -> Verdict:
        """Verdict on B crystals."""
        found = self.reward(crystals)
        reasons, share = list(found.reasons), np.where(found.ok, found.value, 0.0)
        for row in np.flatnonzero((share < 0) | (share > 1)):
            reasons[row] = f"the share {share[row]:g} is not within [0, 1]"
            share[row] = 0.0
        return Verdict(share, reasons)


def number_or(default: float, number: float | None, name: str, low: float = 0.0) -> float:
    """The number of the guard `name`, or its default; ValueError if it is below `low`."""
    if number is not None and number < low:
        raise ValueError(f"the number of the guard {name} must be at least {low:g}, not {number:g}")
    return default if number is None else number


def count_or(default: int, number: float | None, name: str, low: int = 0) -> int:
    """`number_or` for whole numbers."""
    if number is not None and number != int(number):
        raise ValueError(f"the number of the guard {name} must be a whole number, not {number:g}")
    return int(number_or(default, number, name, low))


def no_number(number: float | None, name: str) -> None:
    """ValueError if a number is given."""
    if number is not None:
        raise ValueError(f"the guard {name} takes no number: leave out :{number:g}")


@dataclass(frozen=True)
class SparseHull:
    """Rejection of crystals in chemical systems of few hull entries (subsystems included).

    There everything looks stable (arXiv 2610.03880). A rejected crystal gets the penalty of samples
    that cannot be judged, not a neutral value. With the mean reward it would be better than most
    samples that are judged, and the policy would move to unknown systems.
    """

    hull: Hull
    min_known: int = MIN_KNOWN

    def __call__(self, crystals: Crystals, judged: RewardBatch) -> Verdict:
        """Verdict on B crystals."""
        known = known_system(self.hull.n_known(element_counts(crystals)), self.min_known)
        return Verdict.of(known, f"fewer than {self.min_known} hull entries in the chemical system")


@register("sparse-hull")
def sparse_hull(number: float | None, guarding: Guarding) -> Guard:
    """`SparseHull`; the number is that of entries."""
    return SparseHull(guarding.hull, count_or(MIN_KNOWN, number, "sparse-hull", 1))


@dataclass(frozen=True)
class TooGood:
    """Rejection of crystals far below the hull, which are more likely errors of the potential."""

    max_below: float = MAX_BELOW
    """eV/atom"""

    def __call__(self, crystals: Crystals, judged: RewardBatch) -> Verdict:
        """Verdict on B crystals."""
        above = judged.info["e_above_hull"]
        reason = f"more than {self.max_below:g} eV/atom below the hull"
        return Verdict.of(not_too_good(above, self.max_below), reason)


@register("too-good")
def too_good(number: float | None, guarding: Guarding) -> Guard:
    """`TooGood`; the number is in eV/atom. ValueError if the reward is no energy above hull."""
    if guarding.quantity != E_ABOVE_HULL:
        raise ValueError(
            f"the guard too-good judges energies above hull, and the reward is"
            f" {guarding.quantity.name}: leave it out, or bound the reward with --setup.bounds.high"
        )
    return TooGood(number_or(MAX_BELOW, number, "too-good"))


class PureElements:
    """Rejection of pure elements. They are stable and known, and become half of the samples of a
    policy without guards (arXiv 2610.03880)."""

    def __call__(self, crystals: Crystals, judged: RewardBatch) -> Verdict:
        """Verdict on B crystals."""
        n_elements = (element_counts(crystals) > 0).sum(axis=1)
        return Verdict.of(n_elements > 1, "a pure element")


@register("pure-elements")
def pure_elements(number: float | None, guarding: Guarding) -> Guard:
    """`PureElements`."""
    no_number(number, "pure-elements")
    return PureElements()


class Smact:
    """Rejection of compositions that SMACT rejects, with its oxidation states of 2014.

    The table smact14 is the one of published validities; elements and alloys of metals pass. See
    `charge_balance.composition_valid`.
    """

    def __call__(self, crystals: Crystals, judged: RewardBatch) -> Verdict:
        """Verdict on B crystals."""
        from crystaljax.evaluation.charge_balance import composition_valid

        return Verdict.of(composition_valid(crystals, "smact14"), "SMACT (smact14) rejects it")


@register("smact")
def smact(number: float | None, guarding: Guarding) -> Guard:
    """`Smact`."""
    no_number(number, "smact")
    return Smact()
