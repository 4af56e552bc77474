"""The crystals of a comparison."""

from pathlib import Path

import numpy as np
import pytest

from crystaljax.data.prototypes import prototypes
from crystaljax.evaluation.matching import StructureSet, clusters
from crystaljax.experiment.comparison.data import DataConfig, compared_data
from crystaljax.symmetry.equivalence import canonicalize

CONFIG = DataConfig(max_sites=4, max_length=20.0, max_tokens=15, n_train=60, n_validation=8)


def lengths(crystals, is_train):  # type: ignore[no-untyped-def]
    """As of the hybrid sequence, and nothing for the third crystal."""
    assert len(is_train) == len(crystals)
    found = 5 * np.asarray(crystals.n_sites) + 1
    found[2] = 0
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("data")
    return compared_data(CONFIG, folder, {"hybrid": lengths}), folder


def test_limits_are_kept_and_told(made) -> None:  # type: ignore[no-untyped-def]
    data, _ = made
    for crystals in (data.train, data.validation):
        assert np.asarray(crystals.n_sites).max() <= 2  # 15 tokens are not enough for three
        assert crystals.lattice[:, :3].max() <= 20
        assert crystals.n_slots == 4
    assert len(data.train) == 60
    assert len(data.validation) == 8
    assert data.left_out["that one of the tokenizations cannot write"] == 1
    assert data.left_out["of more than 15 tokens in one of the tokenizations"] > 0
    every = np.asarray(prototypes().crystals.n_sites)
    assert data.left_out["of more than 4 sites"] == (every > 4).sum()
    assert "60 training and 8 validation crystals" in data.words


def test_each_structure_is_there_once_in_its_canonical_description(made) -> None:  # type: ignore[no-untyped-def]
    data, _ = made
    both = type(data.train)(
        *(
            np.concatenate([getattr(data.train, name), getattr(data.validation, name)])
            for name in ("space_group", "wyckoff", "species", "frac", "lattice")
        )
    )
    found = clusters(StructureSet.from_crystals(both, "both"))
    assert len(np.unique(found)) == len(both)
    again = canonicalize(both)
    np.testing.assert_array_equal(again.wyckoff, both.wyckoff)
    np.testing.assert_allclose(again.frac, both.frac, atol=1e-5)


def test_they_are_chosen_once(made, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    data, folder = made
    again = compared_data(CONFIG, folder, {})
    for first, second in zip(data[:2], again[:2], strict=True):
        np.testing.assert_array_equal(first.frac, second.frac)
    assert again.left_out == data.left_out


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training crystal is left without those with an axis"):
        compared_data(DataConfig(max_length=0.5), tmp_path, {"hybrid": lengths})
    assert not list(tmp_path.iterdir())
