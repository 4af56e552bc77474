"""Families of alloys: two phases, their recognition and tags, rules, roles, prompts.

A family of one's own, or an additional rule, is a function in a Python file that returns an
`AlloyFamily`:

    from crystaljax.alloys.family import BCC_B2, AlloyRule

    def much_b2(equilibria, lowest, parts):
        return parts.precipitate.amount(equilibria)[:, 0] > 0.3

    def family():
        return BCC_B2.with_rule("much_b2", AlloyRule(much_b2, 1.0, "30 % of B2 when cold"))

Its name in `AlloyConfig.family` is FILE.py:family. `BCC_B2` and, for another lattice, `FCC_L12` are
shipped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from math import isfinite
from pathlib import Path
from types import MappingProxyType

from crystaljax import user_code
from crystaljax.alloys.composition import TAGS, Tags
from crystaljax.alloys.grid import ROLES, Roles
from crystaljax.alloys.lattice import BCC, FCC, Lattice
from crystaljax.alloys.rules import (
    BCC_AND_B2,
    FCC_AND_L12,
    LOWEST,
    Parts,
    Rule,
    coexist,
    few_other_phases,
    matrix_first,
    precipitate_when_cold,
)

DEFAULT = "bcc-b2"
"""Name of the paper's family."""


@dataclass(frozen=True)
class AlloyRule:
    """A rule, the cost of breaking it, and its wording.

    ValueError for a cost that is negative or not finite, and for a `lowest` that is neither a
    temperature nor the name of one.
    """

    check: Rule
    cost: float
    says: str
    """The requirement, for reports."""
    broken: str = ""
    """Statement that the rule is broken, for prompts; if empty it is made of `says`."""
    lowest: str | float = 0.0
    """Lowest temperature of the rule: in K, or the field of `RulesConfig` that has it."""

    def __post_init__(self) -> None:
        if not (isfinite(self.cost) and self.cost >= 0):
            raise ValueError(
                "the cost of breaking a rule must be a finite number and must not be negative, as"
                f" {self.cost}"
            )
        if isinstance(self.lowest, str):
            if self.lowest not in LOWEST:
                raise ValueError(
                    f"the rules have no temperature {self.lowest!r}: lowest is a number of K, or"
                    f" one of {', '.join(LOWEST)}"
                )
        elif not (isfinite(self.lowest) and self.lowest >= 0):
            raise ValueError(f"lowest must be a temperature in K, not {self.lowest}")

    @property
    def complaint(self) -> str:
        """See `broken`."""
        return self.broken or f"it is not so that: {self.says}"


@dataclass(frozen=True)
class Prompts:
    """Prompt templates: names of shipped ones, or .toml files."""

    training: str = "alloy_short"
    """Prompt that models are trained on, with {elements}; answers have {bcc}, {b2} and {volume}."""
    zero_shot: str = "alloy_zero_shot"
    few_shot: str = "alloy_few_shot"
    ranked_shots: str = "alloy_ranked_shots"
    plain: str = "alloy_plain"
    """See `baselines.shots.ShotsConfig`; `plain` does not state the rules."""
    evaluator: str = "alloy_evaluator"
    revision: str = "alloy_revision"
    """See `baselines.dialogue.DialogueConfig`."""
    review: str = "alloy_review"
    rejected: str = "alloy_rejected"
    """See `baselines.review`."""


@dataclass(frozen=True)
class AlloyFamily:
    """Alloys of a matrix with precipitates.

    ValueError if there is no rule, or the name of a rule is taken or no Python identifier.
    """

    parts: Parts
    """Recognition of the two phases in equilibria."""
    tags: Tags
    """Tags of a candidate's text."""
    rules: Mapping[str, AlloyRule]
    """Rules by name, the most important first; each name is a column of `RewardBatch.info`."""
    roles: Mapping[str, Roles] = field(default_factory=dict)
    """Elements of each phase, by the name of a set."""
    prompts: Prompts = Prompts()
    lattice: Lattice = BCC
    """Lattice on which the precipitate orders. Engines use it to recognise phases of the database
    (their `kind`) and to compute lattice parameters and volumes."""

    def __post_init__(self) -> None:
        if not self.rules:
            raise ValueError("a family of alloys needs at least one rule")
        for name in self.rules:
            if name in NOT_RULES:
                raise ValueError(f"the name {name!r} of a rule is taken: give it another one")
            if not name.isidentifier():  # names of metrics, such as "all rules", are none
                raise ValueError(
                    f"the name {name!r} of a rule must have letters, digits and underscores only"
                )

    def with_rule(self, name: str, rule: AlloyRule) -> AlloyFamily:
        """The family with an additional rule. ValueError if the name is taken, and as above."""
        if name in self.rules:
            raise ValueError(f"the name {name!r} of a rule is taken: give it another one")
        return replace(self, rules=MappingProxyType({**self.rules, name: rule}))


NOT_RULES = (
    *("mismatch", "failed_points", "read"),
    *("missing", "extrapolated", "bound", "databases", "spread"),
    *("text", "value", "ok", "distance", "SMACT_valid", "Pauling_valid"),
    *("readable", "novel", "win", "draw", "loss"),
)
"""Other columns of `RewardBatch.info` and of evaluations, and metrics."""

BCC_B2 = AlloyFamily(
    BCC_AND_B2,
    TAGS,
    MappingProxyType(
        {
            "coexist": AlloyRule(
                coexist,
                1000.0,
                "BCC and B2 coexist at some temperature",
                "BCC and B2 are not in equilibrium with each other at any temperature",
                "coexist_from",
            ),
            "bcc_first": AlloyRule(
                matrix_first,
                100.0,
                "BCC forms first on cooling",
                "the first solid on cooling is not BCC",
                "bcc_first_from",
            ),
            "b2_at_room_temperature": AlloyRule(
                precipitate_when_cold,
                10.0,
                "there is B2 at the lowest temperature",
                "there is no B2 near room temperature",
                "b2_from",
            ),
            "few_other_phases": AlloyRule(
                few_other_phases,
                1.0,
                "other phases are 10 % at most at every temperature",
                "other solid phases exceed 10 % at some temperature",
                "others_from",
            ),
        }
    ),
    ROLES,
)
"""The paper's: BCC with B2, and the rules of Eq. 1."""

FCC_L12 = AlloyFamily(
    FCC_AND_L12,
    Tags("FCC", "L12", "L12_Volume"),
    MappingProxyType(
        {
            "coexist": AlloyRule(
                coexist,
                1000.0,
                "FCC and L12 coexist at some temperature",
                "FCC and L12 are not in equilibrium with each other at any temperature",
                "coexist_from",
            ),
            "fcc_first": AlloyRule(
                matrix_first,
                100.0,
                "FCC forms first on cooling",
                "the first solid on cooling is not FCC",
                "bcc_first_from",
            ),
            "l12_when_cold": AlloyRule(
                precipitate_when_cold,
                10.0,
                "there is L12 at the lowest temperature that is looked at",
                "there is no L12 when it is cold",
                "b2_from",
            ),
            "few_other_phases": BCC_B2.rules["few_other_phases"],
        }
    ),
    {"al-co-cr-ni": Roles(("Ni", "Co", "Cr", "Al"), ("Ni", "Co"), ("Al", "Cr"))},
    Prompts(
        "alloy_fcc_l12_short",
        *("alloy_fcc_l12",) * 3,
        plain="alloy_fcc_l12_plain",
        evaluator="alloy_fcc_l12_evaluator",
        revision="alloy_fcc_l12_revision",
        review="alloy_fcc_l12_review",
        rejected="alloy_fcc_l12_rejected",
    ),
    FCC,
)
"""γ/γ′: FCC with L1₂, as in nickel's superalloys, by rules of the same form."""

FAMILIES: Mapping[str, AlloyFamily] = MappingProxyType({DEFAULT: BCC_B2, "fcc-l12": FCC_L12})
"""Shipped families by name."""


def load_family(source: str = DEFAULT) -> AlloyFamily:
    """A shipped family, such as "bcc-b2", or one of a file, "path/to/file.py:function".

    The file is run: give only files that you trust. FileNotFoundError; ValueError for an unknown
    name, or a function that returns something else; any error that the file raises.
    """
    if source in FAMILIES:
        return FAMILIES[source]
    if ":" not in source:
        names = " and ".join(FAMILIES)
        raise ValueError(
            f"no family of alloys {source!r}: there are {names}; or give FILE.py:FUNCTION"
        )
    made = user_code.load_called(source)()
    if not isinstance(made, AlloyFamily):
        raise ValueError(f"{source} must return an AlloyFamily, not {type(made).__name__}")
    return made


def family_identity(source: str) -> str:
    """Identity of a family in caches: "" for the paper's, else its name, and the file's digest.

    The digest is that of the file's text, without its imports. Errors as in `load_family`.
    """
    if source in FAMILIES:
        return "" if source == DEFAULT else f" {source}"
    path, name = user_code.split(source, "function")
    return f" {name} {sha256(Path(path).read_bytes()).hexdigest()}"
