"""Gaussian processes against closed forms, and the dielectric model made of one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from crystaljax.crystal import Crystals
from crystaljax.data.dataset import load as load_crystals
from crystaljax.rewards.properties import dielectric as module
from crystaljax.rewards.properties.dielectric import Dielectric, load, save, train
from crystaljax.rewards.properties.gaussian_process import (
    Hyperparameters,
    fit,
    kernel,
    log_likelihood,
    predict,
    squared_distances,
)
from crystaljax.rewards.properties.pretrained import Description

AT = Hyperparameters(np.log([0.7, 2.0]).astype(np.float32), np.float32(0.3), np.float32(-1.0))
GROUP = np.array([0, 0, 1])


def covariance(x: np.ndarray) -> np.ndarray:
    """The Matérn-5/2 kernel, written out in float64 for pairs of rows."""
    lengths = np.exp(np.float64(AT.lengths))
    result = np.zeros((len(x), len(x)))
    for i, a in enumerate(x):
        for j, b in enumerate(x):
            square = ((a - b)[:2] ** 2).mean() / lengths[0] ** 2
            r = np.sqrt(5 * (square + (a - b)[2] ** 2 / lengths[1] ** 2))
            result[i, j] = np.exp(0.6) * (1 + r + r**2 / 3) * np.exp(-r)
    return result


def test_kernel_and_likelihood() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 3)), rng.normal(size=12)
    squared = squared_distances(x, x, GROUP, 2)
    np.testing.assert_allclose(kernel(squared, AT), covariance(x), atol=1e-5)
    normal = stats.multivariate_normal(np.zeros(12), covariance(x) + np.exp(-2) * np.eye(12))
    assert float(log_likelihood(squared, y, AT)) == pytest.approx(normal.logpdf(y), rel=1e-4)


def test_a_smooth_function_is_learnt() -> None:
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, (120, 3))
    y = 5 + np.sin(2 * x[:, 0])  # the second group does not matter
    process = fit(x, y, GROUP)
    lengths = np.exp(process.hyperparameters.lengths)
    assert lengths[1] > 3 * lengths[0]
    new = rng.uniform(-1.5, 1.5, (50, 3))
    mean, deviation = predict(process, new)
    assert np.abs(mean - 5 - np.sin(2 * new[:, 0])).max() < 0.3
    far_mean, far_deviation = predict(process, np.full((1, 3), 1e3))
    assert far_mean[0] == pytest.approx(y.mean(), abs=1e-3)
    assert far_deviation[0] > 3 * deviation.mean()
    with pytest.raises(ValueError, match="finite"):
        fit(x, np.full(120, np.nan), GROUP)


def described(n: int = 40) -> Description:
    rng = np.random.default_rng(1)
    reasons: list[str | None] = [None] * n
    return Description(rng.normal(size=(n, 6)), rng.uniform(8, 30, n), np.zeros(n), reasons)


def trained(data: Description) -> tuple[Dielectric, np.ndarray]:
    """A model of constants that grow with the first feature."""
    constant = 1 + np.exp(1 + 0.5 * data.descriptor[:, 0])
    missing = data._replace(reasons=["no atoms", *data.reasons[1:]])
    return Dielectric(train(data, constant), SimpleNamespace(describe=lambda _: missing)), constant


def test_constants_are_predicted_and_saved(tmp_path: Path) -> None:
    crystals: Crystals = load_crystals("prototypes").crystals[:40]
    model, constant = trained(described())
    predicted = model.predict(crystals)
    assert predicted.reasons[0] == "no atoms"
    assert np.isnan(predicted.value[0])
    assert np.abs(predicted.value - constant)[1:].max() < 0.5
    assert (predicted.value[1:] > 1).all()
    cautious = Dielectric(model.process, model.megnet, caution=1.0).predict(crystals)
    assert (cautious.value[1:] < predicted.value[1:]).all()

    save(tmp_path / "model", model.process)
    again = Dielectric(load(tmp_path / "model"), model.megnet).predict(crystals)
    np.testing.assert_allclose(again.value, predicted.value, rtol=1e-5)


def test_bad_constants_and_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not above 1"):
        train(described(), np.full(40, 0.9))
    with pytest.raises(FileNotFoundError, match=r"no process\.npz"):
        load(tmp_path)
    np.savez(tmp_path / "process.npz", x=np.zeros(3))
    with pytest.raises(ValueError, match="no dielectric model"):
        load(tmp_path)
    (tmp_path / "process.npz").write_bytes(b"PK none")
    with pytest.raises(ValueError, match="no dielectric model"):
        load(tmp_path)


@pytest.mark.slow
def test_the_model_that_is_shipped(shared: Path) -> None:
    """Constants of four materials, which it was trained on, and the two parts of their merit."""
    from crystaljax.data.readers import read

    folder = Path(__file__).parents[1] / "checkpoints" / "dielectric-mp"
    megnet = shared / "weights" / "matgl" / "MEGNet-MP-2019.4.1-BandGap-mfi"
    records = list(read(shared / "data" / "mp_dielectric.csv.gz"))[::20]
    model = module.dielectric(folder, megnet=megnet)
    predicted = model.predict([record.cell for record in records if record.cell])
    truth = np.array([record.properties["poly_electronic"] for record in records], float)
    assert np.abs(np.log(predicted.value / truth)).mean() < 0.1
