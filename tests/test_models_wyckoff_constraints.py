"""Demands on samples: the model's own distribution of what meets them, by rejection as oracle."""

from __future__ import annotations

import json
import logging
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest
from slow_reference import reference
from small import SMALL
from test_sampling import policy
from wishes import drawn, wish

from crystaljax.composition import SYMBOLS, atomic_number
from crystaljax.conditions import Condition
from crystaljax.models.wyckoff import decoder as wyckoff_decoder
from crystaljax.models.wyckoff.decoder import Rollout
from crystaljax.models.wyckoff.sampler import Sampler, _decode
from crystaljax.policies.wyckoff import WyckoffPolicy, load_wyckoff
from crystaljax.sampling import make_demands
from crystaljax.tokenizations.wyckoff import N_SPECIES

BATCH = 256


def sample(n: int, seed: int = 1, repeat: int = 1, **settings: object) -> Rollout:
    return drawn(*policy(), n, seed, repeat, **({"batch_size": BATCH} | settings))


def sampler(seed: int = 0, **settings: object) -> Sampler:
    condition, config = wish(**({"batch_size": BATCH} | settings))
    demands = make_demands(condition, SMALL.max_sites)
    return Sampler(policy()[0].graph, policy()[1], seed, demands, config)


@cache
def free(space_groups: tuple[int, ...] | None = None) -> Rollout:
    """Samples without demands."""
    return sample(16 * BATCH, seed=2, space_group=space_groups)


def compare(found: Rollout, oracle: Rollout) -> None:
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
    assert 0.5 * np.abs(letters - own).sum() < 0.2


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
    drawn = sampler(temperature=0.7, elements=("Fe", "O", "Ti"), required=("O",)).draw(groups)
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
    assert sample(64, formula=formula).satisfied.all()


def test_rows_of_one_group() -> None:
    found = sample(30, repeat=4, required=("O",))
    groups = found.tokens.space_group
    assert len(groups) == 30
    for first in range(0, 30, 4):
        assert len(set(groups[first : first + 4])) == 1
    assert len(set(map(tuple, found.tokens.lattice.tolist()))) == 30  # none is there twice


def test_nothing_is_compiled_for_another_wish() -> None:
    compiled = [wyckoff_decoder._letter, wyckoff_decoder._species, wyckoff_decoder._lattice]
    for first, second in (
        ({"formula": "NaCl"}, {"formula": "SrTiO3", "space_group": (221, 123)}),
        ({"template": ("a", "b")}, {"template": ("a", "b", "c"), "space_group": (221,)}),
        ({"required": ("O",)}, {"elements": ("Fe", "O"), "required": ("Fe",)}),
    ):
        sample(64, **first)
        before = [f._cache_size() for f in compiled]
        sample(64, **second)
        assert [f._cache_size() for f in compiled] == before


def test_every_sample_has_demands_of_its_own() -> None:
    """In one batch: what `Constraints` hold is by sample."""
    one, other = sampler(elements=("Fe", "O")), sampler(elements=("Na", "Cl"), required=("Na",))
    group = np.full(BATCH // 2, 62)
    both = jax.tree.map(
        lambda *xs: np.concatenate(xs),
        one._demands.constraints(group),
        other._demands.constraints(group),
    )
    keys = jax.random.split(jax.random.key(0), BATCH)
    seen = np.zeros((BATCH, SMALL.max_sites), int)
    for rows, found in _decode(one._decoder, keys, np.full(BATCH, 62), both, BATCH):
        seen[rows] = found.tokens.species
    assert set(np.unique(seen[: BATCH // 2])) == {0, 8, 26}
    assert set(np.unique(seen[BATCH // 2 :])) == {0, 11, 17}


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
        demands = make_demands(Condition(**asked), 6, counts)
        assert demands.known[2 if "elements" in asked else 36]
    with pytest.raises(ValueError, match=r"required is He.*seen in training"):
        make_demands(Condition(required=("He",)), 6, counts)
    demands = make_demands(Condition(), 6, counts)
    assert not demands.known[[2, 36]].any()
    assert not demands.binding


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
        found = drawn(loaded, params, 128, 3, formula=formula, max_candidates=2)
        assert found.satisfied.all(), formula
