"""Known phases from tables of entries."""

import gzip
from pathlib import Path

import pytest

from crystaljax.alloys.grid import (
    PAPER_LEVELS,
    ROLES,
    Roles,
    b2_candidates,
    bcc_candidates,
    paper_grid,
)
from crystaljax.alloys.known import (
    EntriesError,
    KnownConfig,
    estimated_roles,
    known_alloys,
    known_phases,
    read_compositions,
)

ENTRIES = """\
material_id,formula_pretty,energy_above_hull,symmetry.number,nsites
1,Nb,0.0,229,1
2,Ti,0.11,229,2
3,Al,0.30,229,1
4,AlNi,0.0,221,2
5,AlNi,0.05,221,2
6,AlNi,0.05,221,4
7,HfRu,0.0,221,2
8,MnRh,0.0,221,2
9,AlMn,0.05,221,2
10,AlTi,0.0,123,2
11,NaCl,0.2,221,2
12,Cr,-0.01,229,1
13,Mn,0.1,229,29
14,Al2Ni,0.0,221,3
15,,0.0,229,1
"""


@pytest.fixture
def entries(tmp_path: Path) -> Path:
    path = tmp_path / "entries.csv"
    path.write_text(ENTRIES)
    return path


def test_a_table_of_entries(entries: Path) -> None:
    known = known_phases(entries)
    assert known.bcc == [{"Nb": 1.0}, {"Ti": 1.0}]
    assert known.b2 == [dict.fromkeys(pair, 1.0) for pair in (
        ("Al", "Ni"), ("Hf", "Ru"), ("Mn", "Rh"), ("Al", "Mn"))]  # fmt: skip
    assert known.left_out == {
        "energy above hull out of range": 2,
        "neither BCC nor B2": 4,
        "other elements": 1,
        "no formula or energy": 1,
    }
    few = known_phases(entries, KnownConfig(("Nb", "Al", "Ni"), most=0.0))
    assert (few.bcc, few.b2) == ([{"Nb": 1.0}], [{"Al": 1.0, "Ni": 1.0}])


def test_the_export_of_the_materials_project(tmp_path: Path) -> None:
    """Its website's CSV has names of columns with blanks."""
    path = tmp_path / "export.CSV"
    path.write_text(
        "Material ID,Formula,Crystal System,Space Group Symbol,Space Group Number,Sites,"
        "Energy Above Hull,Band Gap\n"
        "mp-90,Cr,Cubic,Im-3m,229,1,0.0,0\n"
        "mp-1487,AlNi,Cubic,Pm-3m,221,2,0.0,0\n"
        "mp-9,AlNi,Cubic,Pm-3m,221,16,0.0,0\n"
    )
    known = known_phases(path)
    assert (known.bcc, known.b2) == ([{"Cr": 1.0}], [{"Al": 1.0, "Ni": 1.0}])
    assert known.left_out == {"neither BCC nor B2": 1}
    assert known_alloys(path, ("Al", "Ni")) == [{"Al": 1.0, "Ni": 1.0}]


def test_texts_of_formulas_in_any_coding(tmp_path: Path) -> None:
    for name, content in (
        ("latin.txt", b"AlNi\nCr\xe9\n\n"),
        ("wide.txt", "AlNi\nCré\n".encode("utf-16")),
        ("packed.txt.gz", gzip.compress(b"AlNi\nCr\xe9\n")),
    ):
        (tmp_path / name).write_bytes(content)
        assert read_compositions(tmp_path / name) == [{"Al": 1.0, "Ni": 1.0}, None], name


def test_phases_by_name_and_a_packed_file(tmp_path: Path) -> None:
    path = tmp_path / "entries.csv.gz"
    lines = "Formula,Phase,e_above_hull\nCr33Fe67,A2,0.1\nMnAl2Fe,B2,0\nAl3Ti,L1_2,0\n"
    path.write_bytes(gzip.compress(lines.encode()))
    known = known_phases(path)
    assert known.bcc == [{"Cr": 33.0, "Fe": 67.0}]
    assert known.b2 == [{"Mn": 1.0, "Al": 2.0, "Fe": 1.0}]


def test_roles(entries: Path) -> None:
    roles = estimated_roles(known_phases(entries))
    assert roles.bcc == ("Nb", "Ti")
    # Pauling: Hf 1.3, Mn 1.55, Al 1.61, Ni 1.91, Ru 2.2, Rh 2.28; Al is left of Ni, right of Mn.
    assert roles.first_site == ("Al", "Hf", "Mn")
    assert roles.second_site == ("Al", "Ni", "Rh", "Ru")


def test_what_is_no_table(entries: Path, tmp_path: Path) -> None:
    entries.write_text(ENTRIES.replace("energy_above_hull", "energy"))
    with pytest.raises(EntriesError, match="none of the columns energy_above_hull, e_above_hull"):
        known_phases(entries)
    with pytest.raises(FileNotFoundError):
        known_phases(tmp_path / "none.csv")
    with pytest.raises(ValueError, match=r"no energy is from 0 to -1 eV/atom"):
        KnownConfig(most=-1.0)
    entries.write_text(ENTRIES.splitlines()[0] + "\n1,Nb,0,229,1\n")
    with pytest.raises(ValueError, match="1 known BCC and 0 known B2 phases determine no roles"):
        estimated_roles(known_phases(entries))


def test_known_alloys(entries: Path, tmp_path: Path) -> None:
    found = known_alloys(entries, ("Al", "Ni", "Ti", "Ru"))
    assert found == [{"Al": 1.0, "Ni": 1.0}, {"Al": 1.0, "Ti": 1.0}, {"Al": 2.0, "Ni": 1.0}]
    path = tmp_path / "formulas.txt"
    path.write_text("Cr33Fe67\n\nwhat?\nAl2 Ni\n")
    assert read_compositions(path) == [
        {"Cr": 33.0, "Fe": 67.0},
        None,
        {"Al": 2.0, "Ni": 1.0},
    ]
    with pytest.raises(EntriesError, match="no alloy of 2 or more of Zr"):
        known_alloys(path, ("Zr",))


def test_the_grid_of_the_paper() -> None:
    grid = paper_grid(ROLES["paper"])
    bcc, b2 = bcc_candidates(grid), b2_candidates(grid)
    # Of 11 elements 5 shares of two and 7 of three; see `paper_grid` for the paper's numbers.
    assert len(bcc) == 5 * 55 + 7 * 165 == 1430
    assert len(b2) == 675
    thirteen = Roles((*ROLES["paper"].bcc, "Al", "Y"), ("Al",), ("Ni",))
    assert len(bcc_candidates(paper_grid(thirteen))) == 2392  # the paper's 2413 less 21
    for amounts in bcc:
        assert sum(amounts.values()) == 100
        near = [min(PAPER_LEVELS, key=lambda x, y=y: abs(x - y)) for y in amounts.values()]
        assert max(abs(x - y) for x, y in zip(near, amounts.values(), strict=True)) <= 1
    shares = {round(4 * x / sum(one.values()), 6) for one in b2 for x in one.values()}
    assert shares == {1, 2}  # 25 and 50 %


def test_pairs_of_the_paper() -> None:
    from crystaljax.alloys.dataset import PairsConfig, candidates

    bcc = [{"Cr": float(n), "Fe": 1000.0 - n} for n in range(1, 208)]
    b2 = [{"Al": 1.0, "Ni": float(n)} for n in range(1, 89)]
    train, validation = candidates(bcc, b2, PairsConfig())
    assert len(train) + len(validation) == 54_648
    assert len({(id(one.bcc), id(one.b2)) for one in (*train, *validation)}) == 18_216
