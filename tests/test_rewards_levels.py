"""Energies meet only hulls of their own level of theory."""

from __future__ import annotations

import gzip
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_rewards_ehull import IRON, NACL, Fixed, crystals_of

from crystaljax.rewards.ehull import EnergyAboveHull, create_e_above_hull, load_hull
from crystaljax.rewards.formation import mp_references
from crystaljax.rewards.hull import Hull
from crystaljax.rewards.levels import LevelError, needs_correction, split_level
from crystaljax.rewards.pool import PoolConfig
from crystaljax.rewards.potentials import potential_level
from crystaljax.rewards.stability import StabilityConfig, StabilityReward

ENTRIES = [
    {"composition": {"Na": 1}, "energy": -1.2},
    {"composition": {"Cl": 2}, "energy": -3.4},
    {"composition": {"Na": 1, "Cl": 1}, "energy": -6.9},
]


def matpes_hull(path: Path) -> Path:
    path.write_text(json.dumps({"level": "matpes-pbe", "entries": ENTRIES}))
    return path


@pytest.mark.parametrize("name", ["matgl", "matgl:models/TensorNet-MatPES-PBE-v2025.1-PES"])
def test_matpes_against_the_materials_project(name: str, tmp_path: Path) -> None:
    """An error before anything is loaded or started, in whatever pool."""
    with pytest.raises(LevelError, match=r"MatPES-PBE .*MP2020 .*FILE@MatPES-PBE"):
        create_e_above_hull(name)
    for kind in ("inline", "processes"):
        with pytest.raises(LevelError, match="would mean nothing"):
            StabilityReward(StabilityConfig(name, pool=PoolConfig(kind=kind)))  # type: ignore[arg-type]
    # With a hull of its own level the pool may start (its workers would load the potential).
    hull = str(matpes_hull(tmp_path / "hull.json"))
    config = StabilityConfig(name, hull, pool=PoolConfig(kind="processes"))
    if find_spec("matgl") is None:
        with pytest.raises(ImportError, match=r"crystaljax\[matgl\]"):
            StabilityReward(config)
    else:
        StabilityReward(config).close()


def test_matgl_s_own_weights_against_a_hull_of_theirs(shared: Path, tmp_path: Path) -> None:
    pytest.importorskip("matgl", reason="needs the matgl extra")
    weights = shared / "weights" / "matgl" / "TensorNet-MatPES-PBE-v2025.1-PES"
    reward = create_e_above_hull(f"matgl:{weights}", matpes_hull(tmp_path / "hull.json"))
    found = reward(crystals_of(NACL))
    assert found.ok.all() and found.info["correction"][0] == 0
    with pytest.raises(LevelError, match="MP2020"):
        EnergyAboveHull(reward.potential, load_hull("demonstration"))


@pytest.mark.parametrize(
    ("name", "level"),
    [
        ("chgnet", "MP2020"),
        ("chgnet:r2scan", "MP-r2SCAN"),
        ("nequix", "MP"),
        ("nequix:some/where/nequix-oam-1.nqx", "MP"),
        ("nequix:my.nqx", None),
        ("nequix:my.nqx@mp", "MP"),
        ("nequix:my.nqx@SCAN of ours", "SCAN of ours"),
        ("matgl:MatGL/TensorNet-MatPES-r2SCAN-v2025.1-PES", "MatPES-r2SCAN"),
        ("matgl:my_folder", None),
        ("orb", "MP"),
        ("orb:orb-v2", "MP"),
        ("orb:orb-v3-direct-20-omat", "OMat24"),
        ("orb:orb-v3-direct-20-omat:file.ckpt", "OMat24"),
        ("sevennet", "MP"),
        ("sevennet:7net-l3i5", "MP"),
        ("sevennet:7net-mf-0:pbe", "MP"),
        ("sevennet:7net-mf-0:R2SCAN", "MP-r2SCAN"),
        ("sevennet:mine.pth:PBE", None),
        ("sevennet:mine.pth@MP", "MP"),
    ],
)
def test_levels_of_potentials(name: str, level: str | None) -> None:
    assert potential_level(name) == level


def test_which_energies_may_meet() -> None:
    assert not needs_correction("a", "MP2020", "hull", "MP2020")
    assert needs_correction("a", "MP", "hull", "MP2020")
    assert not needs_correction("a", "MP", "hull", "MP")
    for level, hull_level in (("MP2020", "MP"), ("OMat24", "MP2020"), ("MP", "MatPES-PBE")):
        with pytest.raises(LevelError, match=f"a gives energies of the level {level}"):
            needs_correction("a", level, "hull", hull_level)
    with pytest.raises(LevelError, match="name it after the weights"):
        needs_correction("a", None, "hull", "MP2020")


def test_what_is_kept_belongs_to_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crystaljax.rewards.stability.require_package", lambda _: None)
    path, pool = tmp_path / "mine.nqx", PoolConfig(kind="processes")
    path.write_bytes(b"one")
    with StabilityReward(StabilityConfig(f"nequix:{path}@MP", pool=pool)) as stability:
        first = stability._identity()
        path.write_bytes(b"two")
        assert stability._identity() != first


def test_any_potential_is_checked() -> None:
    with pytest.raises(LevelError, match="fixed gives energies of the level OMat24"):
        EnergyAboveHull(Fixed(-5.0, "OMat24"), load_hull("demonstration"))


def test_an_uncorrected_hull_takes_uncorrected_energies() -> None:
    hull = Hull.from_entries(["NaCl", "Fe"], [-2.0, 0.0], level="mp")
    batch = EnergyAboveHull(Fixed(-5.0, "MP"), hull)(crystals_of(NACL, IRON))
    np.testing.assert_array_equal(batch.info["correction"], 0)
    references = mp_references()
    assert batch.info["formation_energy"][0] == pytest.approx(
        -5 - (references[11] + references[17]) / 2
    )


def csv(path: Path, text: str) -> None:
    path.write_text(text)


def gzipped(path: Path, text: str) -> None:
    path.write_bytes(gzip.compress(text.encode()))


def parquet(path: Path, text: str) -> None:
    import pyarrow as pa
    from pyarrow import csv, parquet

    header, _, table = text.partition("\n")
    level = header.partition(": ")[2]
    rows = csv.read_csv(pa.BufferReader(table.encode()))
    parquet.write_table(rows.replace_schema_metadata({"level": level}), path)


def columns(path: Path, text: str) -> None:
    header, *rows = text.splitlines()
    formulas, energies = zip(*(row.split(",") for row in rows[1:]), strict=True)
    table: dict[str, Any] = {"formula": formulas, "formation_energy": list(map(float, energies))}
    path.write_text(json.dumps({"level": header.partition(": ")[2]} | table))


@pytest.mark.parametrize(
    ("name", "write"),
    [("h.csv", csv), ("h.csv.gz", gzipped), ("h.parquet", parquet), ("h.json", columns)],
)
def test_files_state_their_level(tmp_path: Path, name: str, write: Any) -> None:
    path = tmp_path / name
    write(path, "# level: mp\nformula,formation_energy\nNaCl,-2\nKCl,-2.2\n")
    hull = load_hull(path)
    assert hull.level == "MP" and hull.n_entries == 2
    assert load_hull(f"{path}@MP").level == "MP"
    with pytest.raises(ValueError, match=f"{name}: the file states .* level MP, not MP2020"):
        load_hull(f"{path}@mp2020")


def test_levels_of_hulls(tmp_path: Path) -> None:
    entries = tmp_path / "entries.json"
    entries.write_text(json.dumps(ENTRIES))
    assert load_hull(entries).level == "MP2020"
    hull = load_hull(f"{entries}@OMat24")
    assert hull.level == "OMat24" and "OMat24" in hull.label
    assert hull.digest != load_hull(entries).digest
    table = tmp_path / "table.csv"
    table.write_text("formula,formation_energy\nNaCl,-2\n")
    with pytest.raises(ValueError, match="refer to elements of that level, which are not known"):
        load_hull(f"{table}@OMat24")
    (tmp_path / "other.csv").write_text("# level: MP\nformula,formation_energy\nNaCl,-2\n")
    with pytest.raises(ValueError, match="several levels of theory are mixed"):
        Hull.from_file([table, tmp_path / "other.csv"])


def test_a_level_after_a_name(tmp_path: Path) -> None:
    assert split_level("hull.csv") == ("hull.csv", None)
    assert split_level("a@b.csv@matpes-pbe") == ("a@b.csv", "MatPES-PBE")
    (tmp_path / "a@b.csv").touch()
    assert split_level(f"{tmp_path}/a@b.csv") == (f"{tmp_path}/a@b.csv", None)
    with pytest.raises(ValueError, match="level of theory is empty"):
        split_level("hull.csv@")


POLONIUM = (221, 3.35, [(1, 84)])


def test_chgnet_does_not_judge_what_it_never_saw() -> None:
    pytest.importorskip("chgnet", reason="needs the chgnet extra")
    from crystaljax.rewards.potentials import create_potential

    others = [(225, 5.0, [(1, z)]) for z in (85, 86, 87, 88)]
    found = create_potential("chgnet", device="cpu").energies(
        crystals_of(NACL, POLONIUM, *others, IRON)
    )
    assert found.ok.tolist() == [True, *[False] * 5, True]
    assert found.reasons[1] == "the potential was not trained on Po"
