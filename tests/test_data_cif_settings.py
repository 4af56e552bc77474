"""The space-group settings of CIFs without listed operations: atoms against spglib's operations."""

from functools import cache

import numpy as np
import pytest
import spglib

from crystaljax.data import cif

WAYS = ("Hall", "Hall, number", "short symbol, Hall", "full symbol, number", "number, code")
OPEN = {"full symbol, number": 72, "suffixed symbol": 1, "type, code": 1}
"""Settings that a way does not tell, and no lattice: one of two origins in 66, and the
axes of the six of group 67, of which two each share a symbol. Suffixes tell all but the one
that has none."""


TYPES = {
    kind.number: kind.international_short
    for kind in map(spglib.get_spacegroup_type, range(530, 0, -1))
    if kind is not None
}
"""The short symbol of each type: that of its first setting."""


@cache
def oracle(hall: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A lattice of a setting as cell parameters [6], two sites [2, 3], all atoms [N, 3], [N]."""
    rng = np.random.default_rng(hall)
    group = spglib.get_symmetry_from_database(hall)
    rotations, translations = group["rotations"], group["translations"]
    vectors = np.diag(rng.uniform(6, 12, 3)) + rng.uniform(0, 1.5, (3, 3))
    metric = np.mean([r.T @ vectors @ vectors.T @ r for r in rotations], axis=0)
    lengths = np.sqrt(np.diag(metric))
    cosines = metric[[1, 0, 0], [2, 2, 1]] / lengths[[1, 0, 0]] / lengths[[2, 2, 1]]
    sites = rng.uniform(0.05, 0.95, (2, 3))
    for r, t in zip(rotations[1:], translations[1:], strict=True):  # an operation that fixes points
        images = [sites[1]]
        for _ in range(11):
            images.append(r @ images[-1] + t)
        fixed = np.mean(images, axis=0)
        if np.allclose(r @ fixed + t, fixed):
            sites[1] = fixed
            break
    atoms, species = [], []
    for site, z in zip(sites, (11, 17), strict=True):
        images = (rotations @ site + translations) % 1
        distinct = images[np.unique(np.round(images, 6) % 1, axis=0, return_index=True)[1]]
        atoms.append(distinct)
        species += [z] * len(distinct)
    parameters = np.concatenate([lengths, np.degrees(np.arccos(cosines))])
    return parameters, sites, np.concatenate(atoms), np.array(species)


def names(hall: int, way: str) -> list[str]:
    """The lines of a CIF that name a setting in some way."""
    kind = spglib.get_spacegroup_type(hall)
    suffixed = f"{kind.international_full}:{kind.choice}".removesuffix(":")
    quote = '"' if "'" in kind.hall_symbol else "'"
    lines = {
        "Hall": f"_space_group_name_Hall {quote}{kind.hall_symbol}{quote}",
        "number": f"_space_group_IT_number {kind.number}",
        "short symbol": f"_symmetry_space_group_name_H-M '{kind.international_short}'",
        "full symbol": f"_symmetry_space_group_name_H-M '{kind.international_full}'",
        "suffixed symbol": f"_space_group_name_H-M_alt '{suffixed}'",
        "type": f"_space_group_name_H-M_alt '{TYPES[kind.number]}'",
        "code": f"_space_group_IT_coordinate_system_code '{kind.choice}'",
    }
    return [lines[part] for part in way.split(", ")]


def text(hall: int, way: str) -> str:
    parameters, sites, _, _ = oracle(hall)
    tags = [f"length_{a}" for a in "abc"] + ["angle_alpha", "angle_beta", "angle_gamma"]
    cell = [f"_cell_{tag} {value:.6f}" for tag, value in zip(tags, parameters, strict=True)]
    columns = [f"_atom_site_{name}" for name in ("label", "fract_x", "fract_y", "fract_z")]
    rows = [
        f"{label} " + " ".join(f"{x:.8f}" for x in site)
        for label, site in zip(("Na1", "Cl1"), sites, strict=True)
    ]
    return "\n".join(["data_x", *cell, *names(hall, way), "loop_", *columns, *rows]) + "\n"


def is_right(hall: int, frac: np.ndarray, species: np.ndarray) -> bool:
    """Whether these are the oracle's atoms."""
    _, _, atoms, numbers = oracle(hall)
    if len(frac) != len(atoms):
        return False
    offset = frac[:, None] - atoms
    offset -= np.round(offset)
    same = (np.abs(offset) < 1e-4).all(axis=-1) & (species[:, None] == numbers)
    return bool((same.sum(axis=0) == 1).all() and (same.sum(axis=1) == 1).all())


def outcome(hall: int, way: str) -> str:
    """ "right", "wrong" or the reason why the CIF is skipped."""
    try:
        cell = cif.parse_one(text(hall, way))
    except ValueError as error:
        return str(error)
    return "right" if is_right(hall, cell.frac, cell.species) else "wrong"


@pytest.mark.parametrize("way", [*WAYS, "suffixed symbol", "type, code", "type, Hall"])
def test_every_setting(way: str) -> None:
    found = [outcome(hall, way) for hall in range(1, 531)]
    wrong = [hall for hall, result in enumerate(found, start=1) if result == "wrong"]
    assert not wrong
    skipped = [result for result in found if result != "right"]
    assert all("is open between" in reason and "list the symmetry" in reason for reason in skipped)
    assert len(skipped) == OPEN.get(way, 0)
