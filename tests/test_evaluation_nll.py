"""Likelihoods at one resolution: bins of the hybrid sequence, and texts of the same bins."""

import dataclasses

import jax
import numpy as np
import pytest
from small import SMALL

from crystaljax.data.prototypes import prototypes
from crystaljax.evaluation.nll import BinnedNll, Resolution, group_nll
from crystaljax.models.wyckoff.likelihood import LogProb
from crystaljax.policies.wyckoff import WyckoffPolicy
from crystaljax.symmetry.tables import tables
from crystaljax.tokenizations.packing import pack, plan_rows
from crystaljax.tokenizations.registry import tokenization_names


@pytest.fixture(scope="module")
def crystals():
    found = prototypes().crystals
    rows = np.flatnonzero(np.asarray(found.n_sites) <= SMALL.max_sites)[:40]
    return found[rows].with_slots(SMALL.max_sites)


def test_rounding_is_that_of_the_texts(crystals) -> None:
    """A text with these decimals says as much of a crystal as of its rounded one."""
    resolution = Resolution()
    for name in ("wyckoff-text", "wyckoff-bins"):
        text = resolution.format(name)
        assert text.encode(crystals) == text.encode(resolution.rounded(crystals))


@pytest.mark.parametrize("name", tokenization_names("text"))
def test_every_format_can_be_had_at_a_resolution(name: str) -> None:
    made = Resolution(2, 1, 1).format(name, max_length=30.0)
    decimals = getattr(made, "coordinate_decimals", None)
    assert decimals == 2 or made.coordinate_width == 0.01
    assert getattr(made, "max_length", 30.0) == 30.0


def test_a_format_without_decimals_is_refused(tmp_path) -> None:
    file = tmp_path / "fixed.py"
    file.write_text(
        "from crystaljax.tokenizations.text.wyckoff import WyckoffText\n"
        "class Fixed:\n"
        "    def __init__(self): self.text = WyckoffText()\n"
        "    def encode(self, crystals): return self.text.encode(crystals)\n"
        "    def decode(self, texts): return self.text.decode(texts)\n"
        "    def pattern(self, *args): return self.text.pattern(*args)\n"
    )
    with pytest.raises(ValueError, match="coordinate_decimals"):
        Resolution().format(f"{file}:Fixed")


def test_group_probabilities_sum_to_one() -> None:
    counts = np.zeros(230, int)
    counts[[224, 61]] = 3, 1
    nll = group_nll(np.arange(1, 231), counts)
    assert np.exp(-nll).sum() == pytest.approx(1)
    assert nll[224] < nll[61] < nll[0] == pytest.approx(np.log(119 / 0.5))


@pytest.mark.slow
def test_bins_are_integrals_of_the_density(crystals) -> None:
    """Of a free length and of a free coordinate, by quadrature of the model's own density."""
    policy = WyckoffPolicy(SMALL, np.ones(230, int))
    params, resolution = policy.init(0), Resolution(1, 1, 1)
    rounded = resolution.rounded(crystals)
    free = tables().free[np.asarray(rounded.space_group)[:, None] - 1, rounded.wyckoff]
    cubic = np.asarray(rounded.space_group) >= 195
    rows = np.flatnonzero(cubic & (free.sum(axis=(1, 2)) == 1))[:3]
    assert len(rows) == 3
    chosen, free = rounded[rows], free[rows]
    scored = BinnedNll(policy, chosen, resolution, batch_size=4)
    found, tokens = scored.parts(params), policy.codec.encode(chosen)
    plan = plan_rows([np.asarray(tokens.n_sites)])
    density = jax.jit(lambda packed: policy.packed_log_prob(params, packed, len(rows)))

    def moved(coordinate: float, length: float) -> LogProb:
        frac, lattice = np.array(tokens.frac), np.array(tokens.lattice)
        frac[free] += coordinate
        lattice[:, :3] *= 1 + length / np.asarray(chosen.lattice)[:, :1]
        new = dataclasses.replace(tokens, frac=frac, lattice=lattice)
        return jax.tree.map(np.asarray, density(pack(new, plan)))

    nodes, weights = np.polynomial.legendre.leggauss(20)
    lengths = [np.exp(moved(0, 0.05 * x).lattice) for x in nodes]
    scale = np.asarray(tokens.lattice)[:, 0] / np.asarray(chosen.lattice)[:, 0]
    expected = np.log(weights @ np.array(lengths) * 0.05 * scale)
    np.testing.assert_allclose(found.lattice, expected, atol=1e-3)
    angles = [np.exp(moved(0.05 * x, 0).coordinate) for x in nodes]
    expected = np.log(weights @ np.array(angles) * 0.05 * 2 * np.pi)
    np.testing.assert_allclose(found.coordinate, expected, atol=1e-3)
    np.testing.assert_allclose(scored(params), scored.of_group - found.total, atol=1e-5)
