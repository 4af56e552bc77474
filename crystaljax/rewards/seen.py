"""Guards against repetition: a discount for compositions and structures that a run has seen.

A memory of rewarded samples is due to Blaschke et al. (J. Cheminformatics 12 (2020), 68); arXiv
2610.03880 discounts crystals by the number of times their composition has occurred. Here a sample
keeps 1/(1 + n) after n earlier occurrences, as in the bonus of count-based exploration (Kolter &
Ng, ICML 2009). The discount acts on the distance of the trained reward r to the penalty p of
samples that cannot be judged: r' = p + (r − p)/(1 + n). So it lowers rewards of any sign and unit,
and a crystal that was seen very often is worth as little as a sample that is no crystal.

All copies within a rollout get the mean of the shares that they would get one after the other. So
the order within a rollout does not matter, and the total for a composition does not depend on the
size of rollouts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from crystaljax.composition import formulas
from crystaljax.crystal import Crystals
from crystaljax.evaluation.matching import StructureSet, clusters, first_matches
from crystaljax.rewards.asked import Asked
from crystaljax.rewards.base import Reasons, RewardBatch
from crystaljax.rewards.guards import (
    Arrays,
    Guard,
    Guarding,
    Verdict,
    count_or,
    no_number,
    register,
)

MAX_REMEMBERED = 100
"""Largest number of structures of one formula that are remembered: the latest ones. A sample is
compared with these and with the rest of its rollout."""


def kept_share(n_before: int, n_copies: int, free: int = 0) -> float:
    """Share that each of several copies in a rollout keeps, after earlier occurrences.

    The mean of 1/(1 + n) over n = n_before ... n_before + n_copies − 1, where the first `free`
    occurrences cost nothing.
    """
    n = np.maximum(n_before + np.arange(n_copies) - free, 0)
    return float(np.mean(1 / (1 + n)))


class SeenCompositions:
    """Discount for reduced formulas that the run has already seen.

    Args:
      free: occurrences that cost nothing.
    """

    def __init__(self, free: int = 0) -> None:
        self.free = free
        self._counts: Counter[str] = Counter()

    def __call__(self, crystals: Crystals, judged: RewardBatch) -> Verdict:
        """Verdict on B crystals, which count as seen from now on."""
        names = formulas(crystals)
        copies = Counter(names)
        shares = {x: kept_share(self._counts[x], n, self.free) for x, n in copies.items()}
        self._counts.update(copies)
        return Verdict(np.array([shares[name] for name in names]), [None] * len(names))

    @property
    def memory(self) -> Arrays:
        """Formulas as the bytes of texts of one length, uint8 [M, L], and int32 [M] counts."""
        if not self._counts:
            return {}
        names = np.array([name.encode() for name in self._counts])
        texts = names.view(np.uint8).reshape(len(names), -1)
        return {"formulas": texts, "counts": np.array([*self._counts.values()], np.int32)}

    def remember(self, memory: Arrays) -> None:
        """Restore what `memory` gave."""
        self._counts = Counter()
        if memory:
            texts = np.ascontiguousarray(memory["formulas"])
            names = texts.view(f"S{texts.shape[1]}").ravel()
            for name, count in zip(names.tolist(), memory["counts"].tolist(), strict=True):
                self._counts[name.decode()] = count


@dataclass(frozen=True)
class _Structures:
    """M structures of a run that do not match each other."""

    crystals: Crystals
    counts: np.ndarray
    """int32 [M]: number of occurrences."""
    last: np.ndarray
    """int32 [M]: rollout of the last occurrence."""
    compared: StructureSet

    @staticmethod
    def of(crystals: Crystals, counts: np.ndarray, last: np.ndarray) -> _Structures:
        """Structures that have not been reduced yet."""
        return _Structures(crystals, counts, last, StructureSet.from_crystals(crystals, "seen"))

    def and_new(self, crystals: Crystals, counts: np.ndarray, rollout: int) -> _Structures:
        """These structures and those of a rollout."""
        return self._like(
            Crystals.concatenate([self.crystals, crystals]),
            np.concatenate([self.counts, counts]),
            np.concatenate([self.last, np.full(len(counts), rollout, np.int32)]),
            np.arange(len(self.counts)),
        )

    def latest(self, most: int) -> _Structures:
        """The `most` structures of each formula that occurred last."""
        dropped: list[int] = []
        for rows in self.compared.rows.values():
            if len(rows) > most:
                order = np.argsort(self.last[rows], kind="stable")
                dropped += [rows[i] for i in order[: len(rows) - most]]
        if not dropped:
            return self
        kept = np.delete(np.arange(len(self.counts)), dropped)
        return self._like(self.crystals[kept], self.counts[kept], self.last[kept], kept)

    def _like(
        self, crystals: Crystals, counts: np.ndarray, last: np.ndarray, rows: np.ndarray
    ) -> _Structures:
        """Structures of which the first are those of `rows`, reduced as far as they are here."""
        made = _Structures.of(crystals, counts, last)
        made.compared.adopt(self.compared, rows)
        return made


class SeenStructures:
    """Discount for structures that the run has already seen, by StructureMatcher's default
    tolerances.

    Structures that cannot be compared are not believed, as they could match any of those seen. The
    latest `MAX_REMEMBERED` structures of each formula are remembered.

    Args:
      free: occurrences that cost nothing.
    """

    def __init__(self, free: int = 0, most: int = MAX_REMEMBERED) -> None:
        self.free, self.most = free, most
        self._rollouts = 0
        self._seen: _Structures | None = None

    def __call__(self, crystals: Crystals, judged: RewardBatch) -> Verdict:
        """Verdict on B crystals, which count as seen from now on."""
        crystals = crystals.to_numpy()
        samples = StructureSet.from_crystals(crystals, "rollout")
        cluster = clusters(samples)
        leaders, copies = np.unique(cluster[cluster >= 0], return_counts=True)
        if self._seen is None:
            self._seen = _Structures.of(crystals[:0], np.zeros(0, np.int32), np.zeros(0, np.int32))
        firsts = StructureSet.from_crystals(crystals[leaders], "rollout")
        firsts.adopt(samples, leaders)
        known = first_matches(firsts, self._seen.compared)
        compared = np.array([i not in firsts.failures for i in range(len(leaders))], bool)
        failures = samples.failures | {
            row: reason
            for i, reason in firsts.failures.items()
            for row in np.flatnonzero(cluster == leaders[i]).tolist()
        }
        before = np.where(known >= 0, np.append(self._seen.counts, 0)[known], 0)
        share = np.zeros(len(crystals))
        for leader, n_before, n in zip(leaders, before.tolist(), copies.tolist(), strict=True):
            share[cluster == leader] = kept_share(n_before, n, self.free)
        reasons: Reasons = [None] * len(crystals)
        for row, reason in failures.items():
            share[row], reasons[row] = 0.0, f"it cannot be compared with what was seen: {reason}"
        self._count(crystals[leaders[compared]], known[compared], copies[compared])
        return Verdict(share, reasons)

    def _count(self, leaders: Crystals, known: np.ndarray, copies: np.ndarray) -> None:
        """Count a rollout's clusters: their places among the known structures (−1 if new), and
        sizes."""
        assert self._seen is not None
        old, new = known >= 0, known < 0
        copies = copies.astype(np.int32)
        np.add.at(self._seen.counts, known[old], copies[old])
        self._seen.last[known[old]] = self._rollouts
        if new.any():
            more = self._seen.and_new(leaders[new], copies[new], self._rollouts)
            self._seen = more.latest(self.most)
        self._rollouts += 1

    @property
    def memory(self) -> Arrays:
        """The structures as arrays of `Crystals`, their counts, and when they occurred last."""
        if self._seen is None or not len(self._seen.counts):
            return {}
        arrays: Arrays = {name: np.array(x) for name, x in vars(self._seen.crystals).items()}
        arrays |= {"counts": self._seen.counts.copy(), "last": self._seen.last.copy()}
        return arrays | {"rollouts": np.array([self._rollouts], np.int32)}

    def remember(self, memory: Arrays) -> None:
        """Go on from a memory."""
        self._rollouts, self._seen = 0, None
        if memory:
            arrays = {name: np.array(array) for name, array in memory.items()}
            self._rollouts = int(arrays.pop("rollouts")[0])
            counts, last = arrays.pop("counts"), arrays.pop("last")
            self._seen = _Structures.of(Crystals(**arrays), counts, last)


class Copies:
    """Discount for copies of a structure within a group: each of m copies keeps 1/m.

    So a structure earns its reward once in a group, however often it is drawn, and a group of
    copies has no advantage over a varied one. Structures are compared by StructureMatcher's default
    tolerances. What cannot be compared is not believed, as it could be a copy.
    """

    takes_asked = True

    def __call__(self, asked: Asked, judged: RewardBatch) -> Verdict:
        """Verdict on B crystals."""
        samples = StructureSet.from_crystals(asked.crystals.to_numpy(), "rollout")
        cluster = clusters(samples)
        of_group = np.stack([np.asarray(asked.group), cluster], axis=1)
        _, same, n = np.unique(of_group, axis=0, return_inverse=True, return_counts=True)
        compared = np.array([row not in samples.failures for row in range(len(asked))], bool)
        reasons: Reasons = [None] * len(asked)
        for row, reason in samples.failures.items():
            reasons[row] = f"it cannot be compared with its group: {reason}"
        return Verdict(np.where(compared, 1 / n[same.ravel()], 0.0), reasons)


@register("copies")
def copies(number: float | None, guarding: Guarding) -> Guard:
    """`Copies`."""
    no_number(number, "copies")
    return Copies()


@register("seen-compositions")
def seen_compositions(number: float | None, guarding: Guarding) -> Guard:
    """`SeenCompositions`; the number is that of occurrences that cost nothing."""
    return SeenCompositions(count_or(0, number, "seen-compositions"))


@register("seen-structures")
def seen_structures(number: float | None, guarding: Guarding) -> Guard:
    """`SeenStructures`; the number is that of occurrences that cost nothing."""
    return SeenStructures(count_or(0, number, "seen-structures"))
