"""Learning by reward from each trained model, with the same number of rewards for all.

PLaID++ (arXiv 2509.07150) finds that preference learning collapses on texts of coordinates and not
on Wyckoff texts. Here every variant starts from its own trained model, and learns by the same
iterated DPO and by the same PPO or GRPO. Curves of stability, uniqueness, novelty and KL over the
number of rewards show whether learning collapses. The hybrid model's space groups are drawn and not
learnt, so its pairs are samples of one space group. All samples of a text model have the same
prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from crystaljax import plots
from crystaljax.evaluation.policies import draw, kl_from
from crystaljax.evaluation.report import Table
from crystaljax.evaluation.stability import Thresholds
from crystaljax.experiment.comparison.runs import Run
from crystaljax.experiment.comparison.stages import Comparison
from crystaljax.experiment.comparison.tables import SUN, Results, mean_text
from crystaljax.experiment.comparison.variants import Variant
from crystaljax.experiment.run_results import check_parts
from crystaljax.ranges import POSITIVE, require
from crystaljax.rewards.base import Reward, RewardBatch
from crystaljax.rewards.bounds import RewardBounds
from crystaljax.rewards.ehull import E_ABOVE_HULL
from crystaljax.rewards.guards import Guarding, Guards, create_guards
from crystaljax.rewards.wrapping import Wrapping
from crystaljax.tracking import read_metrics
from crystaljax.training.crystal_task import CrystalTask
from crystaljax.training.optimizer import fine_tuning
from crystaljax.training.preference import PreferenceConfig, prefer
from crystaljax.training.reinforce import ReinforceConfig, reinforce

log = logging.getLogger(__name__)

Method = Literal["dpo", "grpo"]
"""Iterated DPO, and PPO or GRPO as configured."""

METASTABLE = "metastable"

CURVES = {
    "decoded": "samples/decoded",
    METASTABLE: f"reward/{METASTABLE}",
    "unique": "samples/unique",
    "novel": "samples/novel",
}
"""Curves by name: shares of all samples of a rollout, and the metrics they come from."""

KL = "KL from the trained model (nats)"


@dataclass(frozen=True)
class RewardLearningConfig:
    """Learning by reward, the same for every variant. ValueError if the two methods do not get the
    same number of rewards."""

    dpo: PreferenceConfig = field(
        default_factory=lambda: PreferenceConfig(
            n_iterations=7, n_samples=1000, temperature_step=0.1, optimizer=fine_tuning(1e-4)
        )
    )
    """Iterated DPO."""
    grpo: ReinforceConfig = field(
        default_factory=lambda: ReinforceConfig(
            algorithm="grpo",
            n_steps=70,
            batch_size=100,
            tau=0.04,
            group_size=10,
            optimizer=fine_tuning(1e-4),
        )
    )
    """GRPO, or PPO."""
    bounds: RewardBounds = field(default_factory=lambda: RewardBounds(invalid=-1.0))
    """Bounds of the reward (minus the energy above hull), and the penalty of samples that cannot be
    judged."""
    guards: tuple[str, ...] = ()
    """Guards of the reward, in the order in which they act, as of `rewards.guards`."""
    grammar: bool = False
    """Sample texts under their grammar, for models that write few crystals without it. The samples
    then do not follow the model's own distribution, so PPO and GRPO are only approximate."""
    n_parts: int = 1
    """Micro-batches that a batch is split into, to save memory."""

    def __post_init__(self) -> None:
        counts = self.n_rewards
        if counts["dpo"] != counts["grpo"]:
            raise ValueError(
                f"{counts['dpo']} rewards for DPO and {counts['grpo']} for"
                f" {self.grpo.algorithm.upper()}: make n_iterations times n_samples equal to"
                " n_steps times batch_size"
            )
        check_parts("rl.dpo", self.dpo.batch_size, self.n_parts)
        check_parts("rl.grpo", self.grpo.batch_size, self.n_parts, self.grpo.n_minibatches)

    @property
    def n_rewards(self) -> dict[Method, int]:
        """Samples judged by each method."""
        return {
            "dpo": self.dpo.n_iterations * self.dpo.n_samples,
            "grpo": self.grpo.n_steps * self.grpo.batch_size,
        }


@dataclass(frozen=True)
class TellsMetastable(Wrapping):
    """A reward with the energy above hull in its info, which tells too what is metastable."""

    reward: Any
    threshold: float = Thresholds().metastable
    """eV/atom"""

    def __call__(self, items: Any) -> RewardBatch:
        """Rewards of B items."""
        found = self.reward(items)
        above = np.asarray(found.info["e_above_hull"], np.float64)
        with np.errstate(invalid="ignore"):
            metastable = found.ok & (above <= self.threshold)
        return replace(found, info={**found.info, METASTABLE: metastable})


def guards_of(comparison: Comparison, config: RewardLearningConfig) -> Guards:
    """New guards of the reward; ValueError as of `create_guards`."""
    return create_guards(config.guards, Guarding(comparison.stability.hull, E_ABOVE_HULL))


def check_learning(comparison: Comparison, config: RewardLearningConfig) -> None:
    """ValueError, before anything is trained, for learning by reward that would fail after it."""
    guards_of(comparison, config)
    dpo = config.dpo
    last = comparison.samples.temperature + (dpo.n_iterations - 1) * dpo.temperature_step
    require("rl.dpo", "the sampling temperature of the last iteration", last, POSITIVE)


def learn(
    comparison: Comparison,
    config: RewardLearningConfig,
    variant: Variant,
    seed: int,
    method: Method,
) -> Mapping[str, Any] | None:
    """Learn by reward from a trained model, and evaluate fresh samples of the result.

    None if there is no trained model.
    """
    run = Run(variant, method, seed)
    if (found := run.result(comparison.output)) is not None:
        return found
    if Run(variant, "train", seed).result(comparison.output) is None:
        log.warning("%s: there is no trained model yet", run.name)
        return None
    policy, base = comparison.load(variant, seed)
    sampling = comparison.sampling(config.grammar and variant.is_text)
    reward: Reward = TellsMetastable(comparison.stability)
    task = CrystalTask(
        policy,
        base,
        reward,
        sampling=sampling,
        bounds=config.bounds,
        reference=comparison.reference.structures,
        n_parts=config.n_parts,
        guards=guards_of(comparison, config),
    )
    with comparison.experiment.run(f"runs/{run.name}", run.stage) as training:
        to = training.folder, training.log
        if method == "dpo":
            settings = replace(config.dpo, seed=seed)
            params = prefer(task, base, settings, *to, run_id=training.run_id)
        else:
            params = reinforce(
                task, base, replace(config.grpo, seed=seed), *to, run_id=training.run_id
            )
    metrics = read_metrics(training.metrics_folder)
    each = config.dpo.n_samples if method == "dpo" else config.grpo.batch_size
    names = {**CURVES, KL: "dpo/kl_base" if method == "dpo" else "rl/kl_base"}
    curves = {
        label: (metrics[name] * [each, 1.0]).tolist()
        for label, name in names.items()
        if name in metrics
    }
    free = comparison.sampling(grammar=False)
    drawn = draw(policy, params, free, comparison.samples.n, seed + 1_000_003)
    found = {"kl": kl_from(policy, base, drawn).value} if free.temperature == 1 else {}
    return comparison.judged(run, drawn, curves=curves, n_rewards=config.n_rewards[method], **found)


def curves_figure(results: Results, method: Method, seed: int) -> Figure | None:
    """Shares of metastable, unique and novel samples and KL over rewards; None without any."""
    found = {
        variant.label: result["curves"]
        for variant in results.variants
        if (result := results.found.get(Run(variant, method, seed))) is not None
    }
    if not found:
        return None
    figure = Figure(figsize=(10.0, 6.0), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).ravel()
    for axes, name in zip(panels, (METASTABLE, "unique", "novel", KL), strict=True):
        for i, (label, curves) in enumerate(found.items()):
            points = np.array(curves.get(name, []), float).reshape(-1, 2)
            scale = 1 if name == KL else 100
            colour, marker, line = plots.look(i)
            how: dict[str, Any] = {"color": colour, "marker": marker, "ls": line}
            axes.plot(points[:, 0], scale * points[:, 1], ms=4, label=label, **how)
        axes.set_ylabel(name if name == KL else f"{name} (% of samples)")
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[2:]:
        axes.set_xlabel("rewards")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def end_table(results: Results, config: RewardLearningConfig) -> Table:
    """Rates of fresh samples before and after, all seeds together."""
    names = ("decoded", METASTABLE, "unique", "novel", SUN, f"believable {SUN}")
    rows = []
    for variant in results.variants:
        for stage, label in (
            ("free", "trained"),
            ("dpo", "DPO"),
            ("grpo", config.grpo.algorithm.upper()),
        ):
            rates = [results.rate(variant, stage, name) for name in names]  # type: ignore[arg-type]
            if any(rate is not None for rate in rates):
                texts = ["–" if rate is None else rate.text for rate in rates]
                kl = mean_text(results.values(variant, stage, "kl"), 2)  # type: ignore[arg-type]
                rows.append([variant.label, label, *texts, kl])
    caption = (
        f"Before and after {config.n_rewards['dpo']} rewards, samples drawn freely; KL by the same"
        " samples (in curves by those of the rollouts, which are hotter for DPO)"
    )
    return Table(caption, [["", "", *names, KL], *rows])
