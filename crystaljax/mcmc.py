"""Markov chains over crystals: what a reward finds in a model that is not trained on it.

The chains sample p(crystal | space group) exp(r/τ), the distribution that PPO trains a policy
towards, by Metropolis steps on single sites and on the cell (the conditional generation of
CrystalFormer, arXiv 2403.15734; Metropolis et al., J. Chem. Phys. 21, 1087, 1953). A baseline for
reinforcement learning: nothing is learnt, every sample costs a chain.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np

from crystaljax.checkpoints import About, RunCheckpoints
from crystaljax.composition import atomic_number
from crystaljax.conditions import Condition, chosen
from crystaljax.crystal import Crystals, wrapped
from crystaljax.policies.base import Params, Policy, encode_writable
from crystaljax.progress import progress_bar
from crystaljax.ranges import NOT_NEGATIVE, POSITIVE, at_least, check
from crystaljax.rewards.asked import Asked
from crystaljax.rewards.base import RewardBatch
from crystaljax.symmetry.orbits import constrain_lattice, lattice_free, project, volume
from crystaljax.symmetry.tables import tables
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.rollouts import Clock, Unjudged, judge

log = logging.getLogger(__name__)

T = TypeVar("T")


class Chains(NamedTuple, Generic[T]):
    """B Markov chains."""

    items: T
    """A batch of arrays: where the chains are."""
    log_target: np.ndarray
    """float64 [B]: ln of the density there, up to a constant; −inf where a chain may not be."""
    found: dict[str, np.ndarray]
    """Arrays [B] of what else is known there."""


Evaluate = Callable[[T], Chains[T]]
Propose = Callable[[T, np.random.Generator], T]
"""A symmetric proposal: as likely to be undone as to be made."""


def metropolis(
    chains: Chains[T], propose: Propose[T], evaluate: Evaluate[T], rng: np.random.Generator
) -> tuple[Chains[T], np.ndarray]:
    """One step of B chains: their new states, and which proposals were accepted, bool [B]."""
    new = evaluate(propose(chains.items, rng))
    with np.errstate(invalid="ignore"):  # −inf − −inf: not accepted
        ratio = new.log_target - chains.log_target
    accepted = np.log(rng.random(len(ratio))) < ratio
    return jax.tree.map(lambda old, x: _where(accepted, x, old), chains, new), accepted


def _where(mask: np.ndarray, yes: np.ndarray, no: np.ndarray) -> np.ndarray:
    return np.where(mask.reshape(-1, *[1] * (np.ndim(yes) - 1)), yes, no)


@dataclass(frozen=True)
class Moves:
    """Lengths of proposals; each changes the cell, or one site's element or place."""

    coordinate: float = 0.03
    """Standard deviation of the change of a free fractional coordinate."""
    length: float = 0.05
    """The same for a free cell length over the cube root of the number of atoms, in Å."""
    angle: float = 0.03
    """The same for a free cell angle, in radians."""

    def __post_init__(self) -> None:
        check(self, coordinate=NOT_NEGATIVE, length=NOT_NEGATIVE, angle=NOT_NEGATIVE)

    def propose(
        self, crystals: Crystals, elements: np.ndarray, rng: np.random.Generator
    ) -> Crystals:
        """Changed crystals; `elements` int are the atomic numbers to choose from."""
        n = len(crystals)
        move = rng.integers(4, size=n)
        site = (rng.random(n) * crystals.n_sites).astype(int)
        other = (rng.random(n) * crystals.n_sites).astype(int)
        row = np.arange(n)
        group = np.maximum(crystals.space_group, 1)  # rows of zeros are no crystals, and stay so
        species, frac = crystals.species.copy(), crystals.frac.copy()

        drawn = rng.choice(elements, n)
        species[row, site] = np.where(move == 0, drawn, species[row, site])
        first, second = species[row, site], species[row, other]
        species[row, site] = np.where(move == 1, second, first)
        species[row, other] = np.where(move == 1, first, species[row, other])

        free = tables().free[group - 1, crystals.wyckoff[row, site]]
        push = rng.normal(0, self.coordinate, (n, 3)) * free * (move == 2)[:, None]
        frac[row, site] = wrapped((frac[row, site] + push).astype(frac.dtype))

        scale = np.array([self.length] * 3 + [np.rad2deg(self.angle)] * 3)
        push = rng.normal(0, scale, (n, 6)) * np.asarray(lattice_free(group))
        n_atoms = tables().multiplicity[group[:, None] - 1, crystals.wyckoff].sum(axis=1)
        push[:, :3] *= np.cbrt(n_atoms)[:, None]
        lattice = crystals.lattice + np.where((move == 3)[:, None], push, 0).astype(np.float32)
        return Crystals(
            crystals.space_group,
            crystals.wyckoff,
            species,
            np.asarray(project(group[:, None], crystals.wyckoff, frac)),
            np.asarray(constrain_lattice(group, lattice)),
        )


@dataclass(frozen=True)
class MCMCConfig:
    """Chains that start at the model's samples."""

    n_chains: int = 100
    """Chains, each of which gives one sample in the end."""
    n_steps: int = 500
    """Proposals of every chain."""
    tau: float = 0.1
    """τ in the reward's unit: as in PPO, what a nat of improbability is worth."""
    elements: tuple[str, ...] = ()
    """Elements to propose; those of the samples the chains start from if none are given."""
    moves: Moves = field(default_factory=Moves)
    """Lengths of proposals."""
    seed: int = 0
    """Random seed for the first states and the proposals."""
    save_every: int = 20
    """Steps between checkpoints; the last step is always saved."""

    def __post_init__(self) -> None:
        one = at_least(1)
        check(self, n_chains=one, n_steps=one, save_every=one, tau=POSITIVE)


def run_chains(
    task: CrystalTask,
    params: Params,
    config: MCMCConfig,
    folder: Path,
    track: Callable[[dict[str, Any], int], None],
) -> Crystals:
    """State of the chains after all steps, going on from the folder's last checkpoint.

    The task's policy draws the first states under the task's conditions, which no chain leaves.
    `track` takes metrics and the step. A chain never goes where nothing can be judged, unless the
    task's bounds name a penalty: one that follows from the other samples, as in training, would be
    no fixed distribution. Nor does it go where one of the task's guards believes nothing; for the
    same reason discounts do not count here, nor guards that remember. NothingJudged if no first
    state can be judged.
    """
    policy, guards = task.policy, task.guards.fixed
    asked = chosen(task.conditions, config.n_chains, config.seed)
    start = policy.sample(params, asked, config.seed, task.sampling).crystals.to_numpy()
    prompts = told(policy, start, asked)
    elements = np.array([atomic_number(symbol) for symbol in config.elements], np.int32)
    if not len(elements):
        elements = np.unique(start.species[start.species > 0])

    def examine(crystals: Crystals) -> tuple[Chains[Crystals], RewardBatch]:
        logp = log_density(policy, params, crystals, prompts)
        possible = np.isfinite(logp)
        items = Asked.of(crystals, asked)
        judged, _, _ = guards(items, judge(task.reward, items, possible))
        value = task.bounds(judged)
        if task.bounds.invalid is None:
            value = np.where(judged.ok, value, -np.inf)
        found = {"reward": value, "logp": logp}
        return Chains(crystals, logp + value / config.tau, found), judged

    def evaluate(crystals: Crystals) -> Chains[Crystals]:
        return examine(crystals)[0]

    def propose(crystals: Crystals, rng: np.random.Generator) -> Crystals:
        return config.moves.propose(crystals, elements, rng)

    about = About(policy.identity, {"config": dataclasses.asdict(config)})
    with RunCheckpoints(folder / "checkpoints") as checkpoints, progress_bar() as progress:
        first = checkpoints.latest or 0
        if first:
            zeros = np.zeros(config.n_chains)
            shape = Chains(start, zeros, {"reward": zeros, "logp": zeros})
            chains = jax.tree.map(np.asarray, checkpoints.restore(shape, about)[0])
            log.info("going on from step %d", first)
        else:
            chains, judged = examine(start)
            Unjudged()(judged)
        bar = progress.add_task("MCMC", total=config.n_steps, completed=first)
        for step in range(first, config.n_steps):
            clock = Clock()
            rng = np.random.default_rng([config.seed, 4, step])
            with clock("step"):
                chains, accepted = metropolis(chains, propose, evaluate, rng)
            reached = chains.found["reward"]
            numbers = {"mcmc/accepted": accepted.mean(), "mcmc/logp": _mean(chains.found["logp"])}
            numbers |= {"reward/mean": _mean(reached)}
            numbers |= {"reward/not_ok": 1 - np.isfinite(reached).mean()}
            track({k: float(x) for k, x in numbers.items()} | clock.seconds, step + 1)
            text = f"MCMC, reward {numbers['reward/mean']:.4g}"
            progress.update(bar, completed=step + 1, description=text)
            if checkpoints.due(step + 1, config.save_every) or step + 1 == config.n_steps:
                checkpoints.save(step + 1, chains, about)
    return chains.items


def told(policy: Policy, start: Crystals, asked: Sequence[Condition]) -> list[Condition]:
    """Conditions of chains: those asked, or what the policy needs to be told of the first states.

    So the prompt of a chain stays what it was, whatever its crystal becomes.
    """
    conditions = list(asked)
    rows = [i for i in np.flatnonzero(start.n_sites).tolist() if not asked[i].asked]
    written, at = encode_writable(policy, start, np.array(rows, int))
    for row, condition in zip(at, written.conditions if written else (), strict=True):
        conditions[row] = condition
    return conditions


def log_density(
    policy: Policy, params: Params, crystals: Crystals, conditions: Sequence[Condition]
) -> np.ndarray:
    """float64 [B]: ln p of crystals under their conditions.

    −inf for those that do not meet them, that the policy cannot write, or that are no crystals:
    without sites, or with a cell that does not close.
    """
    lengths, angles = crystals.lattice[:, :3], crystals.lattice[:, 3:]
    closed = (lengths > 0).all(axis=1) & ((angles > 0) & (angles < 180)).all(axis=1)
    closed &= np.asarray(volume(crystals.lattice)) > 0
    logp = np.full(len(crystals), -np.inf)
    rows = np.flatnonzero(closed & (crystals.n_sites > 0))
    written, at = encode_writable(policy, crystals, rows, conditions)
    if written is not None:
        logp[at] = np.where(written.met, policy.log_prob(params, written), -np.inf)
    return logp


def _mean(values: np.ndarray) -> float:
    """Mean of the finite values; -inf without any."""
    return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else -np.inf
