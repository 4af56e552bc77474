"""Log-probabilities of crystals against a slow reference, and what must not change them."""

from __future__ import annotations

import dataclasses
import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import special
from slow_reference import FREE_LATTICE, reference
from small import SMALL

from crystaljax.data.dataset import load
from crystaljax.models.wyckoff.likelihood import LogProb, _outputs, log_prob
from crystaljax.models.wyckoff.transformer import (
    Cache,
    ModelConfig,
    WyckoffTransformer,
    attend_cache,
    attend_heads,
)
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.symmetry.tables import tables
from crystaljax.tokenizations.packing import Rows, pack
from crystaljax.tokenizations.wyckoff import WyckoffTokenization, WyckoffTokens


def random_model(config: ModelConfig = SMALL) -> WyckoffTransformer:
    """Weights that make distributions far from uniform."""
    policy = WyckoffPolicy(config, np.ones(230))
    rng = np.random.default_rng(0)
    return policy.model(
        jax.tree.map(
            lambda x: jnp.asarray(rng.normal(scale=0.4, size=x.shape), x.dtype), policy.param_shapes
        )
    )


@cache
def model() -> WyckoffTransformer:
    return random_model()


@cache
def sequences() -> WyckoffTokens:
    """24 prototypes of up to 6 sites, of all crystal systems, a third of them long."""
    crystals = load("prototypes").crystals
    n_sites = np.asarray(crystals.n_sites)
    fits = np.flatnonzero(n_sites <= SMALL.max_sites)
    rng = np.random.default_rng(0)
    chosen = [rng.choice(fits[n_sites[fits] >= 5], 8, replace=False)]
    last = 0
    for group in FREE_LATTICE:
        inside = (crystals.space_group[fits] > last) & (crystals.space_group[fits] <= group)
        chosen.append(rng.choice(fits[inside], 4, replace=False))
        last = group
    rows = np.unique(np.concatenate(chosen))[:24]
    tokens = WyckoffTokenization(SMALL.max_sites).encode(crystals[rows])
    assert len(tokens) == 24
    assert tokens.n_sites.max() == SMALL.max_sites
    return tokens


ALONE = (Rows(24, SMALL.max_sites, 1),)
"""Rows of one crystal each."""

scored = nnx.jit(log_prob, static_argnums=2)


def score(
    tokens: WyckoffTokens,
    plan: tuple[Rows, ...] = ALONE,
    key: jax.Array | None = None,
    counted: np.ndarray | None = None,
) -> LogProb:
    return LogProb(*map(np.asarray, scored(model(), pack(tokens, plan), len(tokens), key, counted)))


def test_a_slow_reference_agrees() -> None:
    expected = np.array([reference(model(), sequences()[i]) for i in range(24)]).T
    found = score(sequences())
    for name, part, correct in zip(LogProb._fields, found, expected, strict=True):
        np.testing.assert_allclose(part, correct, rtol=1e-4, atol=1e-3, err_msg=name)
    np.testing.assert_allclose(found.total, expected.sum(axis=0), rtol=1e-4)


@pytest.mark.parametrize(
    "plan",
    [
        (Rows(8, 18, 6),),
        (Rows(2, 80, 24),),
        (Rows(12, 6, 2), Rows(20, 5, 2)),
        (Rows(1, 6, 1), Rows(1, 4, 1)),  # too small: it grows
        (Rows(40, 9, 3),),  # with empty rows
    ],
)
def test_the_packing_does_not_matter(plan: tuple[Rows, ...]) -> None:
    order = np.random.default_rng(1).permutation(24)
    packed = score(sequences()[order], plan)
    for part, alone in zip(packed, score(sequences()), strict=True):
        np.testing.assert_allclose(part, alone[order], rtol=1e-5, atol=2e-4)


def test_absent_crystals_have_zero() -> None:
    few = sequences()[np.arange(5)]
    found = scored(model(), pack(few, ALONE), 9)
    np.testing.assert_allclose(found.total[:5], score(sequences()).total[:5], rtol=1e-5)
    np.testing.assert_array_equal(found.total[5:], 0)


def test_no_site_sees_what_comes_later() -> None:
    """Outputs up to a site, and of its row's other crystals, whatever stands after it."""
    block = pack(sequences(), (Rows(6, 24, 6),))[0]
    outputs = jax.jit(lambda b: _outputs(model(), b, None)[0])
    before = np.asarray(outputs(block))
    rng = np.random.default_rng(0)
    for site in range(SMALL.max_sites):
        later = (block.site >= site) & (block.crystal % 2 == 0)
        changed = dataclasses.replace(
            block,
            wyckoff=np.where(later, rng.integers(1, 28, later.shape), block.wyckoff),
            species=np.where(later, rng.integers(1, 119, later.shape), block.species),
            frac=np.where(later[..., None], rng.random(block.frac.shape), block.frac).astype("f4"),
        )
        after = np.asarray(outputs(changed))
        np.testing.assert_array_equal(after[~later], before[~later])
        assert (after[later] != before[later]).any()


def test_no_token_sees_later_coordinates() -> None:
    """The gradient of each token's output by the coordinates of its own site and later ones."""
    tokens = sequences()[int(np.argmax(sequences().n_sites))]
    block = pack(tokens, (Rows(1, 6, 1),))[0]

    def outputs(frac: jax.Array) -> jax.Array:
        return _outputs(model(), dataclasses.replace(block, frac=frac), None)[0][0].sum(-1)

    jacobian = np.asarray(jax.jit(jax.jacobian(outputs))(block.frac))[:, :, 0]  # [S, 5, S, 3]
    for site, token in itertools.product(range(6), range(5)):
        seen = np.zeros((6, 3), bool)
        seen[:site] = True
        seen[site, : max(token - 1, 0)] = True  # token 2 is x itself
        assert (jacobian[site, token][~seen] == 0).all()
        assert (jacobian[site, token][seen] != 0).all()


def fill(n: int, group: int, letters: np.ndarray, species: np.ndarray) -> WyckoffTokens:
    """n sequences of one group at fixed coordinates and lattice."""
    shape = n, SMALL.max_sites
    wyckoff, elements = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    wyckoff[:, : letters.shape[1]] = letters
    elements[:, : letters.shape[1]] = np.where(letters > 0, species, 0)
    frac = np.where(wyckoff[..., None] > 0, np.float32(0.2), np.float32(0))
    return WyckoffTokens(
        np.full(n, group, np.int32), wyckoff, elements, frac, np.ones((n, 6), np.float32)
    )


def test_letters_have_probability_one_in_all() -> None:
    """Every sequence of letters that the rules allow, of up to `max_sites` sites."""
    group, fixed = 216, 4  # a-d are fixed points, e-i are not
    sets = [
        combination
        for n in range(1, 7)
        for combination in itertools.combinations_with_replacement(range(1, 10), n)
        if all(combination.count(letter) < 2 for letter in range(1, fixed + 1))
    ]
    letters = np.array([[*s, *[0] * (6 - len(s))] for s in sets])
    tokens = fill(len(sets), group, letters, np.full(letters.shape, 8))
    plan = (Rows(len(sets), 6, 1),)
    logp = np.asarray(scored(model(), pack(tokens, plan), len(sets)).letter, np.float64)
    assert special.logsumexp(logp) == pytest.approx(0, abs=1e-4)


def test_elements_have_probability_one_in_all() -> None:
    tokens = fill(118, 225, np.ones((118, 1), int), np.arange(1, 119)[:, None])
    logp = np.asarray(scored(model(), pack(tokens, (Rows(118, 6, 1),)), 118).species, np.float64)
    assert special.logsumexp(logp) == pytest.approx(0, abs=1e-5)


def test_only_what_is_free_counts() -> None:
    """Fixed points have no coordinate part; dependent lattice parameters have none either."""
    rock_salt = fill(1, 225, np.array([[1, 2]]), np.array([[11, 17]]))
    plan = (Rows(1, 6, 1),)
    parts = score(rock_salt, plan)
    assert parts.coordinate == 0
    stretched = rock_salt.lattice.copy()
    stretched[:, 1:] += 0.7
    changed = score(dataclasses.replace(rock_salt, lattice=stretched), plan)
    np.testing.assert_array_equal(changed.total, parts.total)
    stretched[:, 0] += 0.7
    assert score(dataclasses.replace(rock_salt, lattice=stretched), plan).total != parts.total

    # (x, 2x, z): CrystalFormer's counting has the density of y besides.
    along = fill(1, 156, np.array([[4]]), np.array([[8]]))
    group, letter = 156, 4
    assert tables().varying[group - 1, letter].all()
    assert not tables().free[group - 1, letter].all()
    assert score(along, plan).coordinate != score(along, plan, None, tables().varying).coordinate


def test_dropout() -> None:
    keys = jax.random.split(jax.random.key(0))
    first, again, second = (score(sequences(), key=k).total for k in (keys[0], keys[0], keys[1]))
    np.testing.assert_array_equal(first, again)
    assert (first != second).all()
    assert (first != score(sequences()).total).all()


def test_bfloat16_is_close() -> None:
    half = random_model(dataclasses.replace(SMALL, dtype="bfloat16"))
    found = np.asarray(scored(half, pack(sequences(), ALONE), 24).total)
    exact = score(sequences()).total
    assert found.dtype == np.float32
    assert np.abs(found - exact).max() > 0
    np.testing.assert_allclose(found, exact, rtol=0.05)


def test_attention_is_what_jax_computes() -> None:
    rng = np.random.default_rng(0)
    query, key, value = (rng.normal(size=(3, 2, 7, 8)).astype(np.float32) for _ in range(3))
    mask = np.tril(np.ones((7, 7), bool)) & (rng.random((3, 1, 7, 7)) < 0.7) | np.eye(7, dtype=bool)
    ours = attend_heads(query, key, value, mask)
    theirs = jax.nn.dot_product_attention(
        *(x.swapaxes(1, 2) for x in (query, key, value)), mask=jnp.asarray(mask)
    )
    np.testing.assert_allclose(ours, theirs.swapaxes(1, 2), rtol=1e-5, atol=1e-6)

    # The last token, with a cache of two places too many.
    cache = Cache(*(np.pad(x[:, :, :6], [(0, 0), (0, 0), (0, 3), (0, 0)]) for x in (key, value)))
    last, longer = attend_cache(query[:, :, 6], key[:, :, 6], value[:, :, 6], cache, jnp.int32(6))
    whole = attend_heads(query, key, value, np.tril(np.ones((7, 7), bool)))
    np.testing.assert_allclose(last, whole[:, :, 6], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(longer.key[:, :, :7], key)
    np.testing.assert_array_equal(longer.value[:, :, :7], value)
