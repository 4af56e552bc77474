"""Compositions of alloys: formulas, candidates of a BCC, a B2 and its volume, and their mixture."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import gcd, isfinite, lcm
from typing import Literal

from crystaljax.alloys.volumes import ATOMIC_VOLUME
from crystaljax.composition import atomic_number

PAPER_ELEMENTS = tuple("Al Ti V Cr Mn Fe Co Ni Zn Y Zr Nb Mo Ru Rh Hf Ta W Ir".split())  # noqa: SIM905
"""The elements of arXiv 2511.12036."""

Amounts = Mapping[str, float]
"""Element symbol -> amount above zero, in the order of the formula."""

_PART = re.compile(r"([A-Z][a-z]?)(\d+\.?\d*|\.\d+)?")
_LONGEST = 200  # characters of a formula
_MOST_ELEMENTS = 4  # of a formula that is sampled: two on each site of a B2
_DENOMINATOR = 100  # amounts are written as whole numbers of at most this sum, if they are such
_CLOSE = 1e-6  # of mole fractions that count as the same
_TAGS = {
    "BCC": re.compile(r"<BCC>(.*?)</BCC>", re.DOTALL),
    "B2": re.compile(r"<B2>(.*?)</B2>", re.DOTALL),
    "B2_Volume": re.compile(r"<B2[_ ]Volume>(.*?)</B2[_ ]Volume>", re.DOTALL),
}
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


class CompositionError(ValueError):
    """A text that is no composition or no candidate; the message says why."""


@dataclass(frozen=True)
class Candidate:
    """A BCC matrix with B2 precipitates, as the paper describes one."""

    bcc: Amounts
    """Composition of the BCC; amounts on any scale."""
    b2: Amounts
    """Composition of the B2."""
    b2_volume: float
    """Percentage of the volume (or of the moles, see `master`) that is B2, between 0 and 100."""

    def __str__(self) -> str:
        """The candidate as the paper writes it, with an underscore in the last tag."""
        volume = f"{self.b2_volume:.4f}".rstrip("0").rstrip(".")
        return (
            f"<BCC>{write_percentages(self.bcc)}</BCC> <B2>{write_formula(self.b2)}</B2>"
            f" <B2_Volume>{volume}</B2_Volume>"
        )


def read_formula(text: str, elements: Collection[str] | None = None) -> dict[str, float]:
    """Amounts in a formula such as "Cr33Fe67", "MnAl2Fe" or "TiV", in its order.

    CompositionError: no formula, an unknown element or one outside `elements`, an amount of zero.
    """
    text = text.strip()
    if not text:
        raise CompositionError("no element")
    if len(text) > _LONGEST:
        raise CompositionError(f"a formula of {len(text)} characters")
    amounts: dict[str, float] = {}
    position = 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise CompositionError(f"{text[position]!r} in {text!r} is no element or amount")
        element, number = part.groups()
        amount = float(number or 1)
        _check_element(element, elements)
        if not amount > 0 or not isfinite(amount):
            raise CompositionError(f"the amount {number} of {element}")
        amounts[element] = amounts.get(element, 0.0) + amount
        position = part.end()
    return amounts


def _check_element(element: str, elements: Collection[str] | None) -> None:
    try:
        atomic_number(element)
    except ValueError:
        raise CompositionError(f"the unknown element {element}") from None
    if elements is not None and element not in elements:
        raise CompositionError(f"the element {element}, which is not in the set")


def fractions(amounts: Amounts) -> dict[str, float]:
    """Amounts scaled to sum to 1."""
    total = sum(amounts.values())
    return {element: amount / total for element, amount in amounts.items()}


def write_formula(amounts: Amounts) -> str:
    """A formula in whole numbers: the least that give the composition, else percentages.

    "Cr33Fe67", "TiV"; percentages are rounded so that they sum to 100, what rounds to nothing is
    left out. CompositionError: an amount is not above zero.
    """
    if not amounts or not all(amount > 0 and isfinite(amount) for amount in amounts.values()):
        raise CompositionError(f"a formula needs amounts above zero, not {dict(amounts)}")
    shares = fractions(amounts)
    numbers = _whole_numbers(list(shares.values()))
    return "".join(
        f"{element}{number if number > 1 else ''}"
        for element, number in zip(shares, numbers, strict=True)
        if number
    )


def write_percentages(amounts: Amounts) -> str:
    """A formula in atomic per cent, as the paper writes BCC phases: "Cr33Fe67", "Cr35Fe65".

    As `write_formula` for equal amounts ("TiV") and where whole per cents are not the composition.
    """
    percentages = {element: 100 * share for element, share in fractions(amounts).items()}
    whole = {element: round(percentage) for element, percentage in percentages.items()}
    exact = all(abs(percentages[e] - n) < 100 * _CLOSE and n for e, n in whole.items())
    if not exact or len(set(whole.values())) == 1:
        return write_formula(amounts)
    return "".join(f"{element}{number}" for element, number in whole.items())


def _whole_numbers(shares: list[float]) -> list[int]:
    """The least whole numbers in proportion to shares that sum to 1, else percentages."""
    parts = [Fraction(share).limit_denominator(_DENOMINATOR) for share in shares]
    close = all(abs(part - s) < _CLOSE for part, s in zip(parts, shares, strict=True))
    common = lcm(*(part.denominator for part in parts))
    if close and sum(parts) == 1 and common <= _DENOMINATOR:
        return [int(part * common) for part in parts]
    exact = [share * _DENOMINATOR for share in shares]
    numbers = [int(value) for value in exact]
    largest = sorted(range(len(exact)), key=lambda n: numbers[n] - exact[n])
    for n in largest[: _DENOMINATOR - sum(numbers)]:
        numbers[n] += 1
    factor = gcd(*numbers)
    return [number // factor for number in numbers]


def read_candidate(
    text: str, elements: Collection[str] | None = None
) -> tuple[Candidate | None, str | None]:
    """The candidate in a model's text and None, or None and the reason why there is none.

    Each tag must occur exactly once; what stands around them does not matter.
    """
    try:
        bcc, b2, volume = (_tagged(text, tag) for tag in _TAGS)
        return Candidate(
            _named("BCC", bcc, elements), _named("B2", b2, elements), _percentage(volume)
        ), None
    except CompositionError as error:
        return None, str(error)


def candidate_pattern(elements: Collection[str]) -> str:
    """A regular expression for candidates of some elements, which a model's texts are held to.

    Formulas of one to four elements with whole amounts below 100, B2 volumes from 10 to 99.9 %.
    An element may come again, as in "AlCrAl": its amounts are summed.
    """
    formula = f"(?:(?:{'|'.join(elements)})(?:[1-9][0-9]?)?){{1,{_MOST_ELEMENTS}}}"
    volume = r"[1-9][0-9](?:\.[0-9])?"
    return f"<BCC>{formula}</BCC> <B2>{formula}</B2> <B2_Volume>{volume}</B2_Volume>"


def _tagged(text: str, tag: str) -> str:
    found = _TAGS[tag].findall(text)
    if len(found) != 1:
        raise CompositionError(f"{'several' if found else 'no'} <{tag}>...</{tag}>")
    return found[0].strip()


def _named(tag: str, text: str, elements: Collection[str] | None) -> dict[str, float]:
    try:
        return read_formula(text, elements)
    except CompositionError as error:
        raise CompositionError(f"the {tag} has {error}") from None


def _percentage(text: str) -> float:
    number = text.removesuffix("%").strip()
    if len(number) > _LONGEST or _NUMBER.fullmatch(number) is None:
        raise CompositionError("the B2 volume is no number")
    value = float(number)
    if not 0 < value < 100:
        raise CompositionError(f"a B2 volume of {value:g} %, which is not between 0 and 100")
    return value


def master(candidate: Candidate, by: Literal["volume", "mole"] = "volume") -> dict[str, float]:
    """Mole fractions of the whole alloy, by element in alphabetical order.

    `by`: whether the B2 percentage is of volume, by the mean atomic volume of each part
    (`volumes.ATOMIC_VOLUME`), or of moles of atoms. CompositionError: an element whose volume is
    not in the table.
    """
    parts = [
        (1 - candidate.b2_volume / 100, candidate.bcc),
        (candidate.b2_volume / 100, candidate.b2),
    ]
    moles: dict[str, float] = {}
    for share, amounts in parts:
        volume = _atomic_volume(amounts) if by == "volume" else 1.0
        for element, x in fractions(amounts).items():
            moles[element] = moles.get(element, 0.0) + share / volume * x
    return fractions(dict(sorted(moles.items())))


def _atomic_volume(amounts: Amounts) -> float:
    """Mean atomic volume in Å³."""
    unknown = [element for element in amounts if element not in ATOMIC_VOLUME]
    if unknown:
        raise CompositionError(f"no atomic volume is known of {', '.join(unknown)}: mix by mole")
    return sum(ATOMIC_VOLUME[element] * x for element, x in fractions(amounts).items())
