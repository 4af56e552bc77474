"""Demands on samples: the model's own distribution of what meets them, by rejection as oracle."""

from __future__ import annotations

import json
import logging
from functools import cache, partial
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy.stats import chisquare
from slow_reference import reference
from small import SMALL
from test_sampling import policy
from wishes import drawn

from crystaljax.composition import SYMBOLS, atomic_number
from crystaljax.conditions import Condition, unmet
from crystaljax.crystal import Crystals
from crystaljax.models.wyckoff import decoder as wyckoff_decoder
from crystaljax.models.wyckoff.demands import TrainingCounts, make_demands, with_groups
from crystaljax.models.wyckoff.lookahead import Begun, Starts
from crystaljax.models.wyckoff.rollout import TokenRollout
from crystaljax.models.wyckoff.sampler import Sampler
from crystaljax.policies.base import SamplingConfig
from crystaljax.policies.wyckoff import WyckoffPolicy, load_wyckoff
from crystaljax.symmetry import occupations
from crystaljax.tokenizations.wyckoff import N_SPECIES

BATCH = 256


def sample(n: int, seed: int = 1, repeat: int = 1, **settings: object) -> TokenRollout:
    return drawn(*policy(), n, seed, repeat, **({"batch_size": BATCH} | settings))


def sampler(seed: int = 0, **settings: object) -> Sampler:
    how = SamplingConfig(**({"batch_size": BATCH} | settings))  # type: ignore[arg-type]
    counts = policy()[0].space_group_counts
    return Sampler(policy()[0].graph, policy()[1], seed, how, TrainingCounts(counts))


def conditioned(conditions: list[Condition], seed: int = 1, repeat: int = 1) -> TokenRollout:
    return sampler(seed).sample(conditions, repeat)


@cache
def free(space_groups: tuple[int, ...] | None = None) -> TokenRollout:
    """Samples without demands."""
    return sample(16 * BATCH, seed=2, space_group=space_groups)


def compare(found: TokenRollout, oracle: TokenRollout) -> None:
    """Sites, first letters and ln p of samples against those that met the demands by chance."""
    assert len(oracle) > 150
    assert found.satisfied.all()
    weight = found.weight / found.weight.sum()
    sites, expected = found.tokens.n_sites, oracle.tokens.n_sites
    error = np.sqrt(expected.var() * (1 / len(oracle) + 1 / found.effective_size))
    assert abs(weight @ sites - expected.mean()) < 3 * error + 1e-6
    error = np.sqrt(oracle.logp_model.var() * (1 / len(oracle) + 1 / found.effective_size))
    assert abs(weight @ found.logp_model - oracle.logp_model.mean()) < 3 * error
    letters, own = (
        np.bincount(x.tokens.wyckoff[:, 0], w, 28)
        for x, w in ((found, weight), (oracle, np.full(len(oracle), 1 / len(oracle))))
    )
    variance = own * (1 - own) * (1 / len(oracle) + 1 / found.effective_size)
    assert np.abs(letters - own).sum() < 1.5 * np.sqrt(variance).sum()


def test_required_elements_are_the_conditional() -> None:
    common = np.bincount(free().tokens.species[:, :2].ravel(), minlength=N_SPECIES)[1:].argmax() + 1
    found = sample(BATCH, required=(SYMBOLS[common - 1],))
    compare(found, free()[(free().tokens.species == common).any(axis=1)])
    assert found.effective_size > 0.5 * BATCH


def test_allowed_elements_are_the_conditional() -> None:
    """Masked token by token, long crystals would be as frequent as without the demand."""
    allowed = np.arange(N_SPECIES) % 3 > 0
    species = free().tokens.species
    met = (allowed[species] | (species == 0)).all(axis=1)
    found = sample(BATCH, elements=tuple(SYMBOLS[z - 1] for z in np.flatnonzero(allowed)))
    compare(found, free()[met])
    assert free().tokens.n_sites[met].mean() < 0.9 * free().tokens.n_sites.mean()


def test_templates_are_the_conditional() -> None:
    """Of groups with one position alone, that are drawn by how likely the template is in each."""
    groups = 1, 4, 7
    found = sample(BATCH, template=("a", "a"), space_group=groups)
    assert (found.tokens.wyckoff[:, :3] == [1, 1, 0]).all()
    oracle = free(groups)[free(groups).tokens.n_sites == 2]
    compare(found, oracle)
    for group in groups:
        share = np.average(found.tokens.space_group == group, weights=found.weight)
        assert share == pytest.approx((oracle.tokens.space_group == group).mean(), abs=0.12)


def test_weights_are_target_over_proposal() -> None:
    """Of single draws, at another temperature: by probabilities computed apart."""
    groups = np.array([1, 12, 62, 194, 225, 2, 14, 139])
    source = sampler(temperature=0.7)
    asked = Condition(elements=("Fe", "O", "Ti"), required=("O",))
    demands = make_demands([asked], SMALL.max_sites, TrainingCounts(np.ones(230)))
    starts = Starts(demands, source.decoder)
    zeros, each = np.zeros(len(groups), int), np.arange(len(groups))
    begun = Begun(zeros, zeros, groups - 1, zeros.astype(float), each, zeros > 0)
    kept, drawn = source.draw(starts, begun)
    drawn = drawn[np.argsort(kept)]
    model = policy()[0].model(policy()[1])
    met = np.flatnonzero(drawn.satisfied)
    assert len(met) > 2
    for i in met:
        target = sum(reference(model, drawn.tokens[int(i)], 0.7, range(1, N_SPECIES)))
        assert drawn.log_weight[i] + drawn.logp[i] == pytest.approx(target, rel=1e-4, abs=1e-3)
    assert np.isneginf(drawn.log_weight[~drawn.satisfied]).all()


@pytest.mark.parametrize("formula", ["NaCl", "CaPd2", "Mg2Al2O4", "Y1Ba2Cu3"])
def test_formulas_have_no_dead_ends(formula: str) -> None:
    """Elements that compete for positions of which there is one each, and sites that run out."""
    assert sample(64, formula=formula, formula_units=1).satisfied.all()


def test_tables_that_are_not_kept_are_not_taken_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of more formulas than there is memory for: tables are freed, others come to be there."""
    formulas = [f"Fe{a}O{b}Ti{c}" for a in range(1, 5) for b in range(1, 5) for c in range(1, 4)]
    demands = make_demands(
        [Condition(formula=x) for x in formulas], SMALL.max_sites, TrainingCounts(np.ones(230))
    )
    starts = Starts(demands, sampler().decoder)
    group = np.array([start.group[0] for start in starts.starts])
    unit = np.array([start.unit[0] for start in starts.starts])
    each = np.arange(len(demands))
    begun = Begun(each, unit, group, np.zeros(len(each)), each, each < 0)
    expected = starts.constraints(begun)
    occupations._kept.cache_clear()
    monkeypatch.setattr(occupations, "CACHE_BYTES", 0)
    jax.tree.map(np.testing.assert_array_equal, starts.constraints(begun), expected)


@pytest.mark.slow
def test_groups_of_formulas() -> None:
    """Those of like formulas in the training data, whatever the network has; one in a row."""
    known = {"KCl": [225] * 60, "NaBr": [221] * 20, "TiO2": [136] * 20}
    one, params = policy()
    asked = WyckoffPolicy(one.config, one.space_group_counts, formula_groups=known)
    found = asked.sample(params, [Condition(formula="NaCl")] * 200, seed=0)
    groups = np.asarray(found.crystals.space_group[found.met])
    share = asked.training.of_formula(found.conditions[0].content)  # type: ignore[misc]
    assert share[[224, 220]].sum() > 0.9
    for group in (225, 221):
        p = share[group - 1]
        assert abs((groups == group).mean() - p) < 4 * np.sqrt(p * (1 - p) / len(groups))
    scored = asked.log_prob(params, found)[found.met]
    np.testing.assert_allclose(found.logp_model[found.met], scored, atol=2e-3, rtol=1e-4)
    rows = asked.sample(params, [Condition(formula="NaCl"), Condition()] * 6, seed=1, repeat=3)
    groups = rows.sequences.tokens.space_group.reshape(-1, 3)
    assert (groups == groups[:, :1]).all()
    free = asked.sample(params, [Condition()] * 8, seed=3)
    same = one.sample(params, [Condition()] * 8, seed=3)
    jax.tree.map(np.testing.assert_array_equal, free.crystals, same.crystals)


def test_groups_that_hold_a_formula_are_drawn_alone() -> None:
    """As often as p(space group | formula) has them among those that hold it."""
    share = np.linspace(1, 2, 230)
    counts = TrainingCounts(np.ones(230), None, lambda _: share / share.sum())
    asked = Condition(formula="NaCl3", formula_units=1, space_group=(1, 215, 221, 225, 230))
    held = occupations.outlook((1, 3)).fits(6)[np.array(asked.space_groups) - 1]
    np.testing.assert_array_equal(held, [True, True, True, True, False])
    others = [Condition(), Condition(formula="NaCl", space_group=225)]
    found = with_groups([asked] * 4000 + others, 6, counts, np.random.default_rng(0))
    assert found[-2:] == others
    groups = np.array([condition.space_group for condition in found[:-2]])
    p = share[[0, 214, 220, 224]] / share[[0, 214, 220, 224]].sum()
    n = [np.sum(groups == group) for group in (1, 215, 221, 225)]
    assert sum(n) == len(groups)
    assert chisquare(n, p * len(groups)).pvalue > 1e-3
    (same,) = with_groups(
        [Condition(formula="NaCl3", space_group=(228, 230), formula_units=1)],
        6,
        counts,
        np.random.default_rng(0),
    )
    with pytest.raises(ValueError, match="no space group that may be drawn"):
        make_demands([same], 6, counts)


def test_dead_ends_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Others are drawn for them. Masks leave none: half of the first ones are said to be some."""
    draw, lost = Sampler.draw, []

    def some_lost(self: Sampler, starts: Starts, begun: Begun) -> tuple[np.ndarray, TokenRollout]:
        rows, found = draw(self, starts, begun)
        if not lost:
            lost.extend(range(0, len(rows), 2))
            found.satisfied[lost], found.log_weight[lost] = False, -np.inf
        return rows, found

    monkeypatch.setattr(Sampler, "draw", some_lost)
    one = sampler()
    found = one.sample([Condition(formula="NaCl", formula_units=1)] * 16)
    assert one.dead_ends == len(lost) == 8
    assert found.satisfied.all() and np.isfinite(found.log_weight).all()


def test_rows_of_one_group() -> None:
    found = sample(30, repeat=4, required=("O",))
    groups = found.tokens.space_group
    assert len(groups) == 30
    for first in range(0, 30, 4):
        assert len(set(groups[first : first + 4])) == 1
    assert len(set(map(tuple, found.tokens.lattice.tolist()))) == 30  # none is there twice


def test_nothing_is_compiled_for_another_wish() -> None:
    """Nor for another number of them."""
    compiled = [wyckoff_decoder._letter, wyckoff_decoder._species, wyckoff_decoder._lattice]
    elements = np.array(SYMBOLS[:64])
    formulas = [Condition(formula=f"{x}O{2 + i % 2}") for i, x in enumerate(elements) if x != "O"]
    required = [Condition(required=(x,)) for x in elements]
    templates = [Condition(template=("a",) * n, space_group=(1, 4, 7)) for n in (1, 2, 3)]
    mixed = [Condition(formula="SrTiO3", space_group=(221, 123)), *required[:9], *templates]
    source = partial(sampler, max_candidates=1, batch_size=64)
    source().sample([Condition(formula="NaCl")] * 64)
    before = [f._cache_size() for f in compiled]
    for conditions in (formulas, required, templates, mixed):
        source().sample(np.resize(np.array(conditions, object), 64).tolist())
        assert [f._cache_size() for f in compiled] == before


def test_every_sample_has_demands_of_its_own() -> None:
    """One batch: formulas, elements, templates, groups, and nothing."""
    asked = [
        Condition(elements=("Fe", "O")),
        Condition(elements=("Na", "Cl"), required=("Na",)),
        Condition(formula="NaCl", formula_units=1),
        Condition(formula="SrTiO3", space_group=(221, 99, 123)),
        Condition(formula="Mg2SiO4", formula_units=2),
        Condition(template=("a", "b", "c")),
        Condition(template=("a", "a"), space_group=1),
        Condition(formula="CaPd2", template=("a", "d"), formula_units=1),
        Condition(space_group=62),
        Condition(),
    ]
    found = conditioned(asked * 20, repeat=2)
    assert found.satisfied.all()
    parts = sampler(1, batch_size=64).sample(asked * 20, repeat=2)
    assert (parts.tokens.species == found.tokens.species).all(axis=1).mean() > 0.95
    conditions = [c for c in asked * 20 for _ in range(2)]
    assert not any(unmet(crystals(found), conditions))
    assert len(set(found.tokens.space_group[18::20])) > 3  # of the unconditional one
    for condition in asked:
        mine = [i for i, c in enumerate(conditions) if c == condition]
        weight = found.log_weight[mine]
        assert np.isfinite(weight).all()
        groups = found.tokens.space_group[mine]
        np.testing.assert_array_equal(groups[::2], groups[1::2])


def crystals(rollout: TokenRollout) -> Crystals:
    """With a lattice that does not matter."""
    tokens = rollout.tokens
    lattice = np.tile(np.array([4.0, 4, 4, 90, 90, 90], np.float32), (len(tokens), 1))
    return Crystals(tokens.space_group, tokens.wyckoff, tokens.species, tokens.frac, lattice)


def test_different_demands_are_the_conditionals_each() -> None:
    """Sampled together: each against those that met it by chance."""
    species, sites = free().tokens.species, free().tokens.n_sites
    common = np.bincount(species[:, :2].ravel(), minlength=N_SPECIES)[1:].argsort()[::-1] + 1
    one, other = (SYMBOLS[z - 1] for z in common[:2])
    asked = [Condition(required=(one,)), Condition(), Condition(required=(other,))]
    found = conditioned(asked * 200)
    compare(found[0::3], free()[(species == common[0]).any(axis=1)])
    compare(found[1::3], free())
    compare(found[2::3], free()[(species == common[1]).any(axis=1)])
    assert sites.max() > 4


def test_one_sample_of_each_demand() -> None:
    """Chosen from few candidates: 250 conditions that ask for the same in other words."""
    species = free().tokens.species
    common = np.bincount(species[:, :2].ravel(), minlength=N_SPECIES)[1:].argmax() + 1
    rare = [z for z in range(1, N_SPECIES) if z != common]
    every = np.array(SYMBOLS[: N_SPECIES - 1])
    asked = [
        Condition(
            required=(SYMBOLS[common - 1],),
            elements=tuple(np.delete(every, [z - 1 for z in rare[i % 16 : i % 16 + i // 16]])),
        )
        for i in range(250)
    ]
    found = conditioned(asked)
    assert found.satisfied.all()
    oracle = free()[(species == common).any(axis=1)]
    error = 4 * oracle.tokens.n_sites.std() / np.sqrt(250)
    assert found.tokens.n_sites.mean() == pytest.approx(oracle.tokens.n_sites.mean(), abs=error)


def test_open_formula_units() -> None:
    """Of a group in which one and two units of one element fit: as likely as the model says."""
    asked = Condition(formula="Fe", space_group=(1, 4), required=())
    found = conditioned([asked] * BATCH)
    assert found.satisfied.all()
    # The oracle: sequences of this one element alone, of any length.
    alone = conditioned([Condition(elements=("Fe",), space_group=(1, 4))] * BATCH, seed=5)
    sites, expected = found.tokens.n_sites, alone.tokens.n_sites
    weight, other = found.weight / found.weight.sum(), alone.weight / alone.weight.sum()
    error = np.sqrt(np.average((expected - other @ expected) ** 2, weights=other))
    error *= np.sqrt(1 / found.effective_size + 1 / alone.effective_size)
    assert abs(weight @ sites - other @ expected) < 3 * error + 0.05


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Condition(properties={"band_gap": 1.0}), "condition 3 of 3: .*properties .band_gap"),
        (Condition(template=("a",) * 9), "condition 3 of 3: a template of 9 sites"),
        (Condition(formula="SrTiO3", space_group=230), "condition 3 of 3: no space group"),
        (Condition(formula="H120He120Li120", formula_units=1), "condition 3 of 3: .*smaller cell"),
    ],
)
def test_a_condition_that_cannot_be_asked(wrong: Condition, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        conditioned([Condition(), Condition(space_group=62), wrong])


def counts_without(*symbols: str) -> np.ndarray:
    counts = np.ones(N_SPECIES, int)
    counts[[atomic_number(symbol) for symbol in symbols]] = 0
    return counts


def test_elements_of_no_training_crystal_are_masked() -> None:
    """And nothing else changes: samples without them are those that there were."""
    masked = np.arange(N_SPECIES) % 10 == 1
    masked[0] = False
    counts = np.where(masked, 0, 1)
    other = WyckoffPolicy(SMALL, policy()[0].space_group_counts, counts)
    found = drawn(other, policy()[1], 16 * BATCH, 2, batch_size=BATCH)
    assert not masked[found.tokens.species].any()
    had = masked[free().tokens.species].any(axis=1)
    assert 0 < had.mean() < 1
    for before, after in zip(
        jax.tree.leaves(free().tokens), jax.tree.leaves(found.tokens), strict=True
    ):
        np.testing.assert_allclose(before[~had], after[~had], atol=1e-4)
    # The log-probability under the model is what it was; that of sampling leaves the masked out.
    np.testing.assert_allclose(found.logp_model[~had], free().logp_model[~had], atol=1e-3)
    assert (found.logp > found.logp_model - 1e-4).all()
    assert found.effective_size == pytest.approx(len(found))


def test_masked_elements_that_are_asked_for() -> None:
    counts = counts_without("He", "Kr")
    for asked in ({"elements": ("He", "O")}, {"formula": "KrF2"}):
        (demand,) = make_demands([Condition(**asked)], 6, TrainingCounts(np.ones(230), counts))
        assert demand.known[2 if "elements" in asked else 36]
    with pytest.raises(ValueError, match=r"required is He.*seen in training"):
        make_demands([Condition(required=("He",))], 6, TrainingCounts(np.ones(230), counts))
    (demand,) = make_demands([Condition()], 6, TrainingCounts(np.ones(230), counts))
    assert not demand.known[[2, 36]].any()
    assert not demand.binding


def test_model_folders_with_and_without_element_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = WyckoffPolicy(SMALL, np.ones(230, int), counts_without("He"))
    made.save(tmp_path / "new", made.init(0))
    with caplog.at_level(logging.WARNING):
        loaded, _ = load_wyckoff(tmp_path / "new")
    assert not caplog.records
    np.testing.assert_array_equal(loaded.element_counts, counts_without("He"))
    path = tmp_path / "new" / "metadata.json"
    content = json.loads(path.read_text())
    del content["element_counts"]
    path.write_text(json.dumps(content))
    with caplog.at_level(logging.WARNING):
        loaded, _ = load_wyckoff(tmp_path / "new")
    assert loaded.element_counts is None
    assert "which elements" in caplog.text


def test_the_shipped_model_knows_its_elements() -> None:
    folder = Path(__file__).parents[1] / "checkpoints" / "wyckoff-mp20bt"
    loaded, _ = load_wyckoff(folder)
    absent = {SYMBOLS[z - 1] for z in np.flatnonzero(loaded.element_counts == 0) if z}
    assert {"He", "Ne", "Ar", "Kr"} < absent
    assert not absent & {"O", "Xe", "H", "Pu"}


@pytest.mark.slow
def test_the_shipped_model_under_constraints() -> None:
    """The faults that were found: 14.5 sites and ln p −134 with O; dead ends of formulas."""
    loaded, params = load_wyckoff(Path(__file__).parents[1] / "checkpoints" / "wyckoff-mp20bt")
    everything = drawn(loaded, params, 4096, 1)
    with_oxygen = everything[(everything.tokens.species == 8).any(axis=1)]
    found = drawn(loaded, params, 1024, 2, required=("O",))
    assert found.satisfied.all()
    assert found.effective_size > 0.8 * len(found)
    sites = np.average(found.tokens.n_sites, weights=found.weight)
    assert sites == pytest.approx(with_oxygen.tokens.n_sites.mean(), rel=0.05)
    medians = [np.median(x.logp_model) for x in (found, with_oxygen)]
    assert medians[0] == pytest.approx(medians[1], abs=2.5)
    for formula in ("NaCl", "CaPd2", "Mg2Al4O8", "YBa2Cu3O7"):
        found = drawn(loaded, params, 128, 3, formula=formula, formula_units=1, max_candidates=2)
        assert found.satisfied.all(), formula
