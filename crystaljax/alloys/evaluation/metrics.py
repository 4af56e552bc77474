"""Metrics of a model's candidates: validity, coverage, novelty, rewards, rules, diversity."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from crystaljax.alloys.composition import Candidate, Tags, read_candidate, write_formula
from crystaljax.alloys.evaluation.diversity import (
    amount_frequencies,
    element_frequencies,
    expected_unique,
    pair_keys,
)
from crystaljax.alloys.evaluation.novelty import (
    COVERAGE,
    NOVELTY,
    Features,
    FeatureSpace,
    coverage_rates,
    nearest,
)
from crystaljax.alloys.evaluation.validity import mixture_validity_rates, validity_rates
from crystaljax.alloys.family import BCC_B2, AlloyFamily
from crystaljax.evaluation.charge_balance import OxidationTable
from crystaljax.evaluation.distribution import total_variation
from crystaljax.evaluation.rates import Difference, Measure, Metric, MetricSet, Rate, standard_error
from crystaljax.evaluation.report import Table
from crystaljax.rewards.base import RewardBatch

VALUE = "value"
"""The column of rewards."""


@dataclass(frozen=True)
class AlloyEvaluationConfig:
    """Definitions of the metrics."""

    oxidation_table: OxidationTable = "smact14"
    """Table of oxidation states for the tests of validity: smact14 (as published) or icsd24
    (newer)."""
    coverage: float = COVERAGE
    """Distance up to which a sample covers a candidate of the reference."""
    novelty: float = NOVELTY
    """Distance beyond which a sample is new."""
    features: Features = "master"
    """Features of the whole alloy, or of its two phases. The paper does not say which."""
    draw: int = 100
    """Number of samples among which distinct pairs of BCC and B2 are counted."""


class KnownAlloys(NamedTuple):
    """Known alloys, by their whole compositions."""

    space: FeatureSpace
    """Feature space, scaled by the training candidates."""
    points: np.ndarray
    """float64 [A, F]: their points."""


@dataclass(frozen=True)
class AlloyReference:
    """The training candidates, and the candidates that samples should cover (see `of`)."""

    name: str
    """Name, such as "alcocrni/train"."""
    space: FeatureSpace
    """Scaled by the training candidates."""
    training: np.ndarray
    """float64 [M, F]: their points."""
    held_out: np.ndarray
    """float64 [H, F]: points of the candidates that samples should cover."""
    elements: np.ndarray
    """float64 [119]: fraction of training candidates with each element, by atomic number."""
    config: AlloyEvaluationConfig = field(default_factory=AlloyEvaluationConfig)
    """Definitions of the metrics."""
    known: KnownAlloys | None = None
    """Known alloys, for which novelty is measured, too."""
    family: AlloyFamily = BCC_B2
    """Family of the candidates."""

    @staticmethod
    def of(
        name: str,
        training: Sequence[Candidate],
        held_out: Sequence[Candidate] = (),
        config: AlloyEvaluationConfig = AlloyEvaluationConfig(),
        known: Sequence[Mapping[str, float]] = (),
        family: AlloyFamily = BCC_B2,
        mix_by: Literal["volume", "mole"] = "volume",
    ) -> AlloyReference:
        """Reference from candidates; without held-out ones, coverage is that of the training ones.

        For the paper's coverage give all pairs of phases (`dataset.all_pairs`) as held-out ones.
        `known`: compositions of known alloys (`known.known_alloys`). `mix_by`: whether percentages
        of the precipitate are by volume or by mole, as for the rewards. ValueError if there are no
        training candidates, or their features are unknown.
        """
        space = FeatureSpace.of(training, config.features, mix_by, family.lattice)
        points = space(training)
        covered = space(held_out) if len(held_out) else points
        found = None
        if len(known):
            # Known alloys have no phases: they are compared with whole alloys.
            whole = space
            if config.features != "master":
                whole = FeatureSpace.of(training, "master", mix_by, family.lattice)
            found = KnownAlloys(whole, whole.of_mixtures(known))
        elements = element_frequencies(training)
        return AlloyReference(name, space, points, covered, elements, config, found, family)


@dataclass(frozen=True)
class AlloyEvaluation(MetricSet):
    """Metrics of N sampled texts; by sample: text, value, ok, distance, each rule."""

    candidates: tuple[Candidate | None, ...]
    """Candidates in the texts; None for texts without one."""
    elements: np.ndarray
    """float64 [119]: fraction of candidates with each element, by atomic number."""
    rules: tuple[str, ...] = ()
    """Names of the rates of rules, including that of all rules."""


def evaluate_alloys(
    texts: Sequence[str], judged: RewardBatch, reference: AlloyReference
) -> AlloyEvaluation:
    """Evaluate N sampled texts; `judged`: their rewards (`AlloyReward.judge_texts`).

    Texts without a candidate count as failures in every rate. ValueError if the lengths differ.
    """
    if len(texts) != len(judged):
        raise ValueError(f"{len(texts)} texts, and {len(judged)} rewards")
    config = reference.config
    family = reference.family
    read = np.asarray(judged.info["read"], bool)
    candidates = tuple(
        read_candidate(text, tags=family.tags)[0] if good else None
        for text, good in zip(texts, read, strict=True)
    )
    points = reference.space(candidates)
    distance = nearest(points, reference.training)
    known = reference.known
    to_known = None if known is None else nearest(known.space(candidates), known.points)
    validity = validity_rates(candidates, config.oxidation_table)
    elements = element_frequencies(candidates)
    metrics: list[Metric] = [
        Rate.of("readable", read, "the text is a candidate of the elements that are allowed"),
        *(rate for rate, _ in validity.values()),
        *coverage_rates(points, reference.held_out, config.coverage, reference.name),
        *_novelty(distance, to_known, reference),
        _unique(candidates, config.draw, family.tags),
        *_reward_metrics(judged),
        *(rules := _rule_rates(judged, family)),
        _element_distance(elements, reference, int(read.sum())),
    ]
    columns: dict[str, np.ndarray] = {"text": np.array(texts, object), VALUE: judged.value}
    columns |= {"ok": judged.ok, "distance": distance}
    columns |= {name.replace(" ", "_"): mask for name, (_, mask) in validity.items()}
    columns |= {name: judged.info[name] for name in (*family.rules, "mismatch")}
    context = (
        f"{len(texts)} sampled texts; every rate is of these unless it says otherwise",
        f"reference: {reference.name} ({len(reference.training)} training candidates, coverage of"
        f" {len(reference.held_out)}), features of the {config.features}",
        *(f"{count} samples: {reason}" for reason, count in list(judged.failures().items())[:5]),
    )
    return AlloyEvaluation(
        len(texts),
        tuple(metrics),
        context,
        columns,
        candidates,
        elements,
        tuple(rate.name for rate in rules),
    )


def evaluate_mixtures(
    mixtures: Sequence[Mapping[str, float] | None], reference: AlloyReference
) -> AlloyEvaluation:
    """Evaluate N compositions without phases, such as those of crystals (CDVAE, Crystal-LLM).

    Metrics are validity, coverage and novelty of whole alloys; there are no rewards. None counts as
    a failure. ValueError if the reference uses features of the phases.
    """
    config = reference.config
    points = reference.space.of_mixtures(mixtures)
    distance = nearest(points, reference.training)
    known = reference.known
    to_known = None if known is None else nearest(known.space.of_mixtures(mixtures), known.points)
    read = [one for one in mixtures if one is not None]
    validity = mixture_validity_rates(mixtures, config.oxidation_table)
    elements = amount_frequencies(read)
    there = np.array([one is not None for one in mixtures], bool)
    metrics: list[Metric] = [
        Rate.of("readable", there, "it is a composition"),
        *(rate for rate, _ in validity.values()),
        *coverage_rates(points, reference.held_out, config.coverage, reference.name),
        *_novelty(distance, to_known, reference),
        _element_distance(elements, reference, len(read)),
    ]
    texts = ["" if one is None else write_formula(one) for one in mixtures]
    columns: dict[str, np.ndarray] = {"text": np.array(texts, object), "distance": distance}
    columns |= {name.replace(" ", "_"): mask for name, (_, mask) in validity.items()}
    context = (f"{len(mixtures)} compositions; every rate is of these",)
    return AlloyEvaluation(len(mixtures), tuple(metrics), context, columns, (), elements)


def _novelty(
    distance: np.ndarray, to_known: np.ndarray | None, reference: AlloyReference
) -> list[Rate]:
    """Rates of samples that are far from the training candidates, and from known alloys."""
    farther = f"farther than {reference.config.novelty:.3g} (rms of scaled Magpie features) from"
    new = distance > reference.config.novelty
    words = f"{farther} every training candidate"
    rates = [Rate.of("novel", new, words, reference=reference.name)]
    if to_known is not None and reference.known is not None:
        words = f"the whole alloy is {farther} each of {len(reference.known.points)} known alloys"
        new = to_known > reference.config.novelty
        rates.append(Rate.of("novel to known", new, words, reference="known alloys"))
    return rates


def _unique(candidates: Sequence[Candidate | None], draw: int, tags: Tags) -> Measure:
    mean = expected_unique(pair_keys(candidates), draw)
    pairs = f"distinct pairs of {tags.matrix} and {tags.precipitate}"
    description = f"{pairs} in {draw} samples, the mean over all draws"
    return Measure(f"unique pairs @{draw}", mean, math.nan, "", len(candidates), description)


def _element_distance(elements: np.ndarray, reference: AlloyReference, n: int) -> Measure:
    return Measure(
        "element TV",
        total_variation(elements, reference.elements) if n else math.nan,
        math.nan,
        "",
        n,
        "total variation of how often elements occur (once for each candidate with them)",
        "candidates",
        reference.name,
    )


def _reward_metrics(judged: RewardBatch) -> list[Measure]:
    valid = judged.value[judged.ok]
    best = float(valid.max()) if len(valid) else math.nan
    unknown = np.full(len(judged), np.nan)  # missing in journals from before it existed
    told = {name: judged.info.get(name, unknown) for name in ("bound", "missing", "extrapolated")}
    thin, extrapolated = (
        np.where(np.isnan(told[name]), np.nan, 100.0 * (told[name] > 0))
        for name in ("missing", "extrapolated")
    )
    of_valid = "candidates that could be judged"
    return [
        Measure.mean("mean reward", judged.value, "", "Eq. 1, with the values of what failed"),
        Measure.mean("mean reward of valid", valid, "", "Eq. 1", denominator=of_valid),
        Measure("best reward", best, math.nan, "", len(valid), "largest of Eq. 1", of_valid),
        Measure.mean(
            "cautious reward",
            told["bound"],
            "",
            "Eq. 1 at least: with the error of the lattice model if it is used, all rules broken"
            " where the database is known to be thin, and the least by other databases",
        ),
        Measure.mean(
            "thin database (%)",
            thin,
            "%",
            "the database lacks the interaction of a pair of the candidate's elements",
            denominator="candidates",
        ),
        Measure.mean(
            "extrapolated (%)",
            extrapolated,
            "%",
            "the database lacks the interaction of a triple of the candidate's elements",
            denominator="candidates",
        ),
        *_spread(judged),
        Measure.mean(
            "mismatch",
            judged.info["mismatch"],
            "Å",
            "smallest difference of the lattice parameters of matrix and precipitate",
            denominator="candidates whose phases coexist",
        ),
    ]


def _spread(judged: RewardBatch) -> list[Measure]:
    """Disagreement between databases, if there are several."""
    if "spread" not in judged.info:
        return []
    several = "candidates that several databases judge"
    number, spread = judged.info["databases"], judged.info["spread"]
    shared = np.where(np.isnan(number), np.nan, 100.0 * (number > 1))
    words = "largest less least reward by the databases that know all pairs of the elements"
    return [
        Measure.mean("several databases (%)", shared, "%", several, denominator="candidates"),
        Measure.mean("spread over databases", spread, "", words, denominator=several),
    ]


def _rule_rates(judged: RewardBatch, family: AlloyFamily) -> list[Rate]:
    rules = family.rules
    kept = {name: np.nan_to_num(judged.info[name]) > 0 for name in rules}
    everything = np.logical_and.reduce(list(kept.values()))
    return [
        *(Rate.of(name, mask, rules[name].says) for name, mask in kept.items()),
        Rate.of("all rules", everything, f"all {len(rules)} rules are kept"),
    ]


@dataclass(frozen=True)
class Comparison:
    """Comparison of two models' samples, such as DPO's with SFT's."""

    win: Measure
    """Share of pairs in which the sample of `after` has the larger reward."""
    draw: Measure
    """Share of pairs whose rewards differ by no more than the tolerance."""
    loss: Measure
    """Share of pairs in which the sample of `after` has the smaller reward."""
    rules: Mapping[str, Difference]
    """Change of the share of samples that keep each rule."""

    def table(self, caption: str) -> Table:
        """Table for a report."""
        rows = [["", "share or change"]]
        rows += [[m.name, m.text] for m in (self.win, self.draw, self.loss)]
        rows += [[name, difference.text] for name, difference in self.rules.items()]
        return Table(caption, rows)


def compare(after: AlloyEvaluation, before: AlloyEvaluation, tolerance: float = 1e-3) -> Comparison:
    """Win, draw and loss over all pairs of a sample of `after` and one of `before`.

    `tolerance`: of rewards, that is, in Å for samples that keep the same rules; the paper gives
    none.
    """
    win, draw, loss = duels(after.columns[VALUE], before.columns[VALUE], tolerance)
    changes = {name: Difference(before[name], after[name]) for name in before.rules}
    return Comparison(win, draw, loss, changes)


def duels(
    values: np.ndarray, others: np.ndarray, tolerance: float
) -> tuple[Measure, Measure, Measure]:
    """Shares of win, draw and loss over all pairs of values [N] and others [M].

    The standard errors are those of a statistic of two samples: the variances of each value's and
    each other's own share, over N and M (E. R. DeLong et al., Biometrics 44 (1988), 837).
    """
    below, upto = _shares(values, others, tolerance)
    below_other, upto_other = _shares(others, values, tolerance)
    shares = {
        "win": (below, 1 - upto_other),
        "draw": (upto - below, upto_other - below_other),
        "loss": (1 - upto, below_other),
    }
    win, draw, loss = (
        Measure(
            name,
            float(one.mean()) if one.size and other.size else math.nan,
            math.hypot(standard_error(one), standard_error(other)),
            "",
            one.size * other.size,
            f"pairs of samples with more than {tolerance:g} between their rewards"
            if name != "draw"
            else f"pairs of samples whose rewards differ by {tolerance:g} at most",
            "pairs of samples",
        )
        for name, (one, other) in shares.items()
    )
    return win, draw, loss


def _shares(
    values: np.ndarray, others: np.ndarray, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """float64 [N] twice: share of others that are below each value, and that are not above it."""
    ordered, n = np.sort(others), max(len(others), 1)
    below = np.searchsorted(ordered, values - tolerance, side="left") / n
    return below, np.searchsorted(ordered, values + tolerance, side="right") / n
