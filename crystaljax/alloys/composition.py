"""Compositions of alloys: formulas, candidates (BCC, B2 and its volume), and their mixture."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isfinite, lcm
from typing import Literal, NamedTuple

import numpy as np

from crystaljax.alloys.lattice import BCC, MOST_ELEMENTS, Lattice, atomic_volume
from crystaljax.composition import atomic_number

PAPER_ELEMENTS = tuple("Al Ti V Cr Mn Fe Co Ni Zn Y Zr Nb Mo Ru Rh Hf Ta W Ir".split())  # noqa: SIM905
"""The elements of arXiv 2511.12036."""

Amounts = Mapping[str, float]
"""Amounts above zero by element symbol, in the order of the formula."""

_AMOUNT = r"[0-9]+(?:[.,][0-9]*)?|[.,][0-9]+"  # with a decimal point or comma
_PART = re.compile(rf"([A-Z][a-z]?)\s*(?:_?\{{({_AMOUNT})\}}|_?({_AMOUNT}))?\s*")
_PLAIN = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2},[0-9]{3}")  # 1.234 or 1234
_LONGEST = 400  # longest formula or number in characters: the smallest float has 344
_DIGITS = 6  # decimals of a percentage that is no whole number
_MOST_ELEMENTS = 4  # largest number of elements of a sampled formula: two on each site of a B2
_DENOMINATOR = 100  # amounts are written as whole numbers if their sum is at most this
_CLOSE = 1e-6  # tolerance of equal mole fractions
_PERCENTAGE = re.compile(rf"([+-]?(?:{_AMOUNT}))\s*(?:(?:vol\.?)?\s*%)?", re.IGNORECASE)


class Tags(NamedTuple):
    """XML tags of a candidate's three values."""

    matrix: str = "BCC"
    precipitate: str = "B2"
    volume: str = "B2_Volume"
    """Tag of the volume; in texts that are read, a blank may replace the underscore."""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Opening and closing tags, for tokenizers."""
        return tuple(f"<{slash}{tag}>" for tag in self for slash in ("", "/"))


TAGS = Tags()
"""Tags of BCC and B2."""


class CompositionError(ValueError):
    """Error: a text is no composition or no candidate; the message says why."""


@dataclass(frozen=True)
class Candidate:
    """A matrix with precipitates, BCC with B2 as in the paper or those of another family.

    CompositionError: the volume is not between 0 and 100 %.
    """

    bcc: Amounts
    """Composition of the matrix; amounts on any scale."""
    b2: Amounts
    """Composition of the precipitate."""
    b2_volume: float
    """Percentage of precipitate by volume (or by mole, see `master`), between 0 and 100."""

    def __post_init__(self) -> None:
        if not 0 < self.b2_volume < 100:
            raise CompositionError(
                f"a share of precipitate of {self.b2_volume:g} %, which is not between 0 and 100"
            )

    def __str__(self) -> str:
        """The candidate as written in the paper, with an underscore in the last tag."""
        return write_candidate(self)


def write_candidate(candidate: Candidate, tags: Tags = TAGS) -> str:
    """Text of a candidate, which `read_candidate` reads."""
    values = (
        write_percentages(candidate.bcc),
        write_formula(candidate.b2),
        write_volume(candidate.b2_volume),
    )
    return " ".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, values, strict=True))


def read_formula(text: str, elements: Collection[str] | None = None) -> dict[str, float]:
    """Amounts in a formula such as "Cr33Fe67", "MnAl2Fe" or "TiV", in its order.

    Also as "Cr 33 Fe 67", "Al₂Ni", "Al_2Ni", "Al_{2}Ni", and with decimal points or commas.
    CompositionError: no formula, an unknown element or one outside `elements`, an amount of zero.
    """
    text = text.translate(_PLAIN).strip()
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
        element = part[1]
        amount = _number(part[2] or part[3] or "1")
        _check_element(element, elements)
        if not amount > 0 or not isfinite(amount):
            raise CompositionError(f"the amount {amount:g} of {element}")
        amounts[element] = amounts.get(element, 0.0) + amount
        position = part.end()
    return amounts


def _number(text: str) -> float:
    """The value of a number with a decimal point or comma."""
    if _THOUSANDS.fullmatch(text):
        raise CompositionError(f"{text}, which may be a decimal number or thousands")
    return float(text.replace(",", "."))


def _check_element(element: str, elements: Collection[str] | None) -> None:
    try:
        atomic_number(element)
    except ValueError:
        raise CompositionError(f"the unknown element {element}") from None
    if elements is not None and element not in elements:
        raise CompositionError(f"the element {element}, which is not in the set")


def fractions(amounts: Amounts) -> dict[str, float]:
    """Amounts scaled to sum to 1. CompositionError: one is not above zero, or there is none."""
    total = sum(amounts.values())
    if not isfinite(total) or not amounts or not all(x > 0 for x in amounts.values()):
        raise CompositionError(f"a composition needs amounts above zero, not {dict(amounts)}")
    return {element: amount / total for element, amount in amounts.items()}


def write_formula(amounts: Amounts) -> str:
    """A formula in the smallest whole numbers, whose sum is at most 100: "Cr33Fe67", "TiV".

    Other compositions are written in per cent with decimals: "Cr33.3Fe66.7". `read_formula` reads
    the same mole fractions from it, up to rounding in the sixth digit.
    CompositionError: an amount is not above zero.
    """
    shares = fractions(amounts)
    numbers = _whole_numbers(list(shares.values()))
    if numbers is None:
        return _join({element: _decimal(100 * share) for element, share in shares.items()})
    written = (str(number) if number > 1 else "" for number in numbers)
    return _join(dict(zip(shares, written, strict=True)))


def write_percentages(amounts: Amounts) -> str:
    """A formula in atomic per cent, as for BCC phases in the paper: "Cr33Fe67", "Cr35Fe65".

    The same as `write_formula` for equal amounts ("TiV") and for per cents that are not whole.
    """
    percentages = {element: 100 * share for element, share in fractions(amounts).items()}
    whole = {element: round(percentage) for element, percentage in percentages.items()}
    exact = all(abs(percentages[e] - n) < 100 * _CLOSE and n for e, n in whole.items())
    if not exact or len(set(whole.values())) == 1:
        return write_formula(amounts)
    return _join({element: str(number) for element, number in whole.items()})


def write_volume(percentage: float, decimals: int = 0) -> str:
    """A percentage in the fewest digits that give the same float: "45", "50.6", "0.00004".

    `decimals`: smallest number of decimals: "45.0" with one.
    """
    return str(
        np.format_float_positional(
            percentage, trim="k" if decimals else "-", min_digits=decimals or None
        )
    )


def _join(parts: Mapping[str, str]) -> str:
    return "".join(f"{element}{amount}" for element, amount in parts.items())


def _decimal(value: float) -> str:
    """A number with a few significant digits and no exponent."""
    return str(
        np.format_float_positional(
            value, precision=_DIGITS, unique=False, fractional=False, trim="-"
        )
    )


def _whole_numbers(shares: list[float]) -> list[int] | None:
    """The smallest whole numbers proportional to shares that sum to 1; None if they are large."""
    parts = [Fraction(share).limit_denominator(_DENOMINATOR) for share in shares]
    close = all(part > 0 and abs(part - s) < _CLOSE for part, s in zip(parts, shares, strict=True))
    common = lcm(*(part.denominator for part in parts))
    if close and sum(parts) == 1 and common <= _DENOMINATOR:
        return [int(part * common) for part in parts]
    return None


def read_candidate(
    text: str, elements: Collection[str] | None = None, tags: Tags = TAGS
) -> tuple[Candidate | None, str | None]:
    """The candidate in a model's text and None, or None and the reason that there is none.

    Each tag must occur exactly once; other text is ignored.
    """
    try:
        matrix, precipitate, volume = (_tagged(text, tag) for tag in tags)
        return Candidate(
            _named(tags.matrix, matrix, elements),
            _named(tags.precipitate, precipitate, elements),
            _percentage(volume, tags),
        ), None
    except CompositionError as error:
        return None, str(error)


def candidate_pattern(elements: Collection[str], tags: Tags = TAGS) -> str:
    """A regular expression for candidates of some elements, for constrained sampling.

    Formulas have one to four elements with whole amounts below 100, B2 volumes are 10 to 99.9 %.
    An element may be repeated, as in "AlCrAl": its amounts are summed.
    """
    formula = f"(?:(?:{'|'.join(elements)})(?:[1-9][0-9]?)?){{1,{_MOST_ELEMENTS}}}"
    volume = r"[1-9][0-9](?:\.[0-9])?"
    values = zip(tags, (formula, formula, volume), strict=True)
    return " ".join(f"<{tag}>{value}</{tag}>" for tag, value in values)


@lru_cache
def _tag_pattern(tag: str) -> re.Pattern[str]:
    name = re.escape(tag).replace("_", "[_ ]")
    return re.compile(f"<{name}>(.*?)</{name}>", re.DOTALL)


def _tagged(text: str, tag: str) -> str:
    found = _tag_pattern(tag).findall(text)
    if len(found) != 1:
        raise CompositionError(f"{'several' if found else 'no'} <{tag}>...</{tag}>")
    return found[0].strip()


def _named(tag: str, text: str, elements: Collection[str] | None) -> dict[str, float]:
    try:
        return read_formula(text, elements)
    except CompositionError as error:
        raise CompositionError(f"the {tag} has {error}") from None


def _percentage(text: str, tags: Tags) -> float:
    number = _PERCENTAGE.fullmatch(text) if len(text) <= _LONGEST else None
    if number is None:
        raise CompositionError(f"the {tags.precipitate} volume is no number")
    try:
        return _number(number[1])
    except CompositionError as error:
        raise CompositionError(f"the {tags.precipitate} volume is {error}") from None


def master(
    candidate: Candidate, by: Literal["volume", "mole"] = "volume", lattice: Lattice = BCC
) -> dict[str, float]:
    """Mole fractions of the whole alloy, by element in alphabetical order.

    `by`: whether the precipitate's percentage is by volume at room temperature, with the volumes of
    the disordered and the ordered phase (`lattice.atomic_volume`), or by moles of atoms.
    CompositionError for an element of unknown volume, and an ordered phase of too many elements.
    """
    parts = [
        (1 - candidate.b2_volume / 100, candidate.bcc, False),
        (candidate.b2_volume / 100, candidate.b2, True),
    ]
    moles: dict[str, float] = {}
    for share, amounts, ordered in parts:
        volume = _atomic_volume(amounts, ordered, lattice) if by == "volume" else 1.0
        for element, x in fractions(amounts).items():
            moles[element] = moles.get(element, 0.0) + share / volume * x
    return fractions(dict(sorted(moles.items())))


def _atomic_volume(amounts: Amounts, ordered: bool, lattice: Lattice) -> float:
    """Mean atomic volume in Å³."""
    unknown = [element for element in amounts if element not in lattice.volumes]
    if unknown:
        raise CompositionError(f"no atomic volume is known of {', '.join(unknown)}: mix by mole")
    if ordered and len(amounts) > MOST_ELEMENTS:
        words = f"a {lattice.ordered} of {len(amounts)} elements, more than {MOST_ELEMENTS}"
        raise CompositionError(words)
    shares = fractions(amounts)
    x = np.array(list(shares.values()))
    return atomic_volume(tuple(shares), x, ordered=ordered, lattice=lattice)
