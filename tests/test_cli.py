"""The command line: the usual way, and errors that say what to do."""

from __future__ import annotations

import csv
import pickle
import re
import runpy
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from flax import nnx
from loose_potential import POTENTIAL
from small import SMALL

from crystaljax.cli import main
from crystaljax.composition import element_counts, formulas
from crystaljax.data.dataset import load
from crystaljax.data.prototypes import prototypes
from crystaljax.data.writers import write
from crystaljax.models.wyckoff.crystalformer import export_checkpoint
from crystaljax.policies.wyckoff import WyckoffPolicy, load_wyckoff
from crystaljax.progress import ProgressLines


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    policy = WyckoffPolicy(SMALL, load("prototypes").space_group_counts)
    policy.save(folder, policy.init(0))
    return folder


def run(*arguments: object) -> None:
    main([str(a) for a in arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that a bad command leaves."""
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    text = capsys.readouterr().err
    assert "Traceback" not in text
    return " ".join(text.split())


def test_work_without_a_terminal_has_lines(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a queued job: a line a minute (here every ten milliseconds) on stderr."""
    monkeypatch.setattr(ProgressLines.__init__, "__defaults__", (0.01, time.monotonic))
    output = tmp_path / "samples.csv"
    run("sample", "--model", model, "--output", output, "--n", 32, "--batch-size", 32)
    assert "sampling 32 crystals, " in capsys.readouterr().err
    ask = ("NaCl", "KCl", "--model", model, "--output", tmp_path / "out", "--potential", "none")
    run("predict", *ask, "--n", 3)
    assert "sampling 3 structures of each of 2 formulas, " in capsys.readouterr().err


def test_sample_then_data(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "samples.json.gz"
    run("sample", "--model", model, "--output", output, "--n", 32, "--batch-size", 32)
    said = " ".join(capsys.readouterr().out.split())
    assert f"of 32 samples are in {output}".replace(" ", "") in said.replace(" ", "")
    assert output.exists()


def test_conditions_of_a_file(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each row is asked for, --n times; what is left out is counted by its kind."""
    asked, output = tmp_path / "asked.csv", tmp_path / "samples.csv"
    asked.write_text("formula,formula_units,space_group\nNaCl,1,225\n,,123\n")
    sample = ("sample", "--model", model, "--output", output, "--batch-size", 32)
    run(*sample, "--conditions", asked, "--n", 16)
    said = " ".join(capsys.readouterr().out.split())
    assert "of 32 samples are in" in said
    assert "32 of 32" in said or "that are no crystal" in said
    numbers = re.findall(r"_Int_Tables_number (\d+)", output.read_text(encoding="utf-8"))
    assert numbers and set(numbers) <= {"225", "123"}
    asked.write_text("formula,formula_units\nNaCl,1\n")
    run(*sample, "--conditions", asked, "--n", 32)
    capsys.readouterr()
    numbers = re.findall(r"_Int_Tables_number (\d+)", output.read_text(encoding="utf-8"))
    assert len(set(numbers)) > 2, "samples of a line have prompts, and space groups, of their own"
    assert "say all of it in the file" in refused(
        capsys, *sample, "--conditions", asked, "--formula", "NaCl"
    )
    asked.write_text("formula\nNaCl\nXx\n")
    assert "line 3" in refused(capsys, *sample, "--conditions", asked)
    assert "for language models" in refused(capsys, *sample, "--grammar")


def elements_in(path: Path) -> list[set[str]]:
    """Elements of each crystal in a file of CIFs, also of those that no reader takes."""
    sums = re.findall(r"_chemical_formula_sum '([^']*)'", path.read_text())
    return [set(re.findall("[A-Z][a-z]?", formula)) for formula in sums]


def test_a_chemical_system(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of its elements and no other, on the command line and in files; summed up in words."""
    output = tmp_path / "samples.csv"
    sample = ("sample", "--model", model, "--output", output, "--batch-size", 32)
    run(*sample, "--chemical-system", "Li-Fe-O", "--space-group", 225, 221, "--n", 16)
    found = elements_in(output)
    assert found and all(names == {"Li", "Fe", "O"} for names in found)
    said = capsys.readouterr().out
    assert re.search(r"\d+ formulas: \w+ \(\d+\)", said)
    assert re.search(r"[12] space groups?: 22[15] [FP]m-3m \(\d+\)", said)
    asked = tmp_path / "asked.csv"
    asked.write_text("chemical_system,space_group\nNa-Cl,225\n")
    run(*sample, "--conditions", asked, "--n", 16)
    found = elements_in(output)
    assert found and all(names == {"Na", "Cl"} for names in found)
    both = ("--chemical-system", "Na-Cl", "--elements", "Na")
    assert "says which elements" in refused(capsys, *sample, *both)
    for text in ("Na-", "Na-Na", "NaCl"):
        refused(capsys, *sample, "--chemical-system", text)
    assert "Xx" in refused(capsys, *sample, "--chemical-system", "Na-Xx")
    other = ("--chemical-system", "Na-Cl", "--formula", "NaF")
    assert "not among" in refused(capsys, *sample, *other)
    asked.write_text("chemical_system,elements\nNa-Cl,Na\n")
    assert "leave elements and required empty" in refused(capsys, *sample, "--conditions", asked)


def test_unique_and_ranked(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Samples of one composition, without duplicates, by the energy that a potential gives."""
    potential, hull = tmp_path / "loose.py", tmp_path / "hull.csv"
    potential.write_text(POTENTIAL)
    hull.write_text("what,E\nNaCl,-2\n")
    given = ("--formula", "NaCl", "--space-group", 221, "--n", 24, "--batch-size", 32)
    sample = ("sample", "--model", model, *given, "--output", tmp_path / "ranked.csv")
    ranking = ("--rank", f"{potential}:Loose", "--hull", f"{hull}:formula=what,energy=E")
    run(*sample, "--unique", *ranking)
    rows = list(csv.DictReader((tmp_path / "ranked.csv").open()))
    energy = [float(row["e_above_hull"]) for row in rows]
    assert energy == sorted(energy)
    assert len({row["material_id"] for row in rows}) == len(rows) > 1
    said = capsys.readouterr().out
    n_left_out = int(re.findall(r"duplicates left out: (\d+)\n", said)[0])
    others = re.findall(r"left out: (\d+) that are no crystal, (\d+)", said)
    n_other = sum(int(n) for pair in others for n in pair)
    assert len(rows) + n_left_out + n_other == 24
    assert "lowest energy above hull first: hull.csv (" in said and "loose" in said
    assert f"1 formula: NaCl ({len(rows)})" in said
    assert "is for ranking" in refused(capsys, *sample, "--hull", hull)
    assert "no potential is named" in refused(capsys, *sample, "--rank", "chagnet")


def test_unknown_element(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(
        capsys, "sample", "--model", model, "--output", tmp_path / "x.csv", "--elements", "Fe", "Xx"
    )
    assert "Xx" in said


def test_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "sample", "--model", tmp_path, "--output", tmp_path / "x.csv")
    assert "metadata.json" in said


def test_truncated_model(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    damaged = tmp_path / "damaged"
    shutil.copytree(model, damaged)
    largest = max((p for p in damaged.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    said = refused(capsys, "sample", "--model", damaged, "--output", tmp_path / "x.csv")
    assert "damaged" in said


def test_model_of_another_configuration(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(model, other)
    text = (other / "metadata.json").read_text()
    (other / "metadata.json").write_text(text.replace('"width": 16', '"width": 32'))
    said = refused(capsys, "sample", "--model", other, "--output", tmp_path / "x.csv")
    assert "another configuration" in said


def test_no_write_permission(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    refused(capsys, "sample", "--model", model, "--output", tmp_path / "file" / "x.csv")


def test_convert_there_and_back(tmp_path: Path) -> None:
    policy = WyckoffPolicy(SMALL, np.ones(230, int))
    params = policy.init(3)
    export_checkpoint(policy.model(params), tmp_path / "in.pkl")
    run("convert", tmp_path / "in.pkl", tmp_path / "model")
    run("convert", tmp_path / "model", tmp_path / "back" / "out.pkl")
    unknown, loaded = load_wyckoff(tmp_path / "model")
    assert unknown.element_counts is None
    for a, b in zip(nnx.to_flat_state(params), nnx.to_flat_state(loaded), strict=True):
        np.testing.assert_array_equal(a[1].get_value(), b[1].get_value())
    first = pickle.loads((tmp_path / "in.pkl").read_bytes())["params"]
    second = pickle.loads((tmp_path / "back" / "out.pkl").read_bytes())["params"]
    for module, arrays in first.items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, second[module][name])


def test_convert_records_the_training_set(tmp_path: Path) -> None:
    policy = WyckoffPolicy(SMALL, np.ones(230, int))
    export_checkpoint(policy.model(policy.init(3)), tmp_path / "in.pkl")
    write(prototypes(1).crystals[:3], tmp_path / "salt.csv")
    run("convert", tmp_path / "in.pkl", tmp_path / "model", "--data", tmp_path / "salt.csv")
    found, _ = load_wyckoff(tmp_path / "model")
    np.testing.assert_array_equal(found.space_group_counts.sum(), 3)
    expected = (element_counts(prototypes(1).crystals[:3]) > 0).sum(axis=0)
    np.testing.assert_array_equal(found.element_counts, expected)


def test_an_empty_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.csv").write_text("")
    assert "empty.csv" in refused(capsys, "data", tmp_path / "empty.csv")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("--temperature", x) for x in ("nan", "inf", "-1", "0")],
        *[("--top-p", x) for x in ("nan", "0", "1.5")],
        *[("--seed", x) for x in ("-1", 2**32, 2**64, 10**30)],
        *[("--n", x) for x in ("0", "-5", 10**12)],
        ("--batch-size", "0"),
        *[("--space-groups", x) for x in ("0", "231", "-1")],
        ("--template", "?"),
        ("--formula", "NaCl0.5"),
    ],
)
def test_numbers_that_cannot_be(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: object
) -> None:
    """They are refused in one line that says which, before anything is sampled."""
    output = tmp_path / "x.csv"
    said = refused(capsys, "sample", "--model", model, "--output", output, option, value)
    assert str(value).lstrip("-") in said
    assert len(said) < 300
    assert not output.exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("--symprec", x) for x in ("nan", "inf", "0", "-0.1")],
        *[("--max-sites", x) for x in ("0", "-3")],
    ],
)
def test_data_with_numbers_that_cannot_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, value: str
) -> None:
    path = write(load("prototypes").crystals[:2], tmp_path / "x.json")
    said = refused(capsys, "data", path, option, value)
    assert option.removeprefix("--").replace("-", "_") in said
    assert value in said


@pytest.mark.parametrize("command", ["sample", "data"])
def test_where_no_file_can_be_written(
    command: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder, a file for a folder and an unknown extension are refused before any work."""
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file").write_text("")
    source = ("--model", model) if command == "sample" else (tmp_path / "not.looked.for",)
    for output, words in {
        tmp_path / "folder.csv": "is a folder",
        tmp_path / "file" / "x.csv": "cannot write in",
        tmp_path / "file" / "deep" / "x.csv": "cannot write in",
        tmp_path / "x.doc": "extensions",
    }.items():
        assert words in refused(capsys, command, *source, "--output", output)


def test_a_part_is_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = tmp_path / "kept.csv", tmp_path / "held.csv"
    options = "--held-out", files[1], "--share", 0.25, "--seed", 3
    crystals = prototypes(1).crystals[:200]
    run("data", write(crystals, tmp_path / "all.csv"), "--output", files[0], *options)
    kept, held = (load(path).crystals for path in files)
    assert (len(kept), len(held)) == (150, 50)
    assert not {*formulas(kept)} & {*formulas(held)}
    assert sorted(formulas(kept) + formulas(held)) == sorted(formulas(crystals))
    assert "50 crystals written to" in " ".join(capsys.readouterr().out.split())


def test_held_out_crystals_have_a_file_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(load("prototypes").crystals[:2], tmp_path / "x.json")
    out = tmp_path / "y.csv"
    assert "another --output" in refused(capsys, "data", path, "--held-out", out)
    same = ("--held-out", out, "--output", out)
    assert "another --output" in refused(capsys, "data", path, *same)
    source = ("--held-out", path, "--output", out)
    assert "is the source" in refused(capsys, "data", path, *source)
    assert not out.exists()


def test_the_source_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(load("prototypes").crystals[:2], tmp_path / "x.json")
    before = path.read_bytes()
    assert "is the source" in refused(capsys, "data", path, "--output", path)
    assert path.read_bytes() == before


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"crystaljax {version('crystaljax')}\n"


def test_as_a_module(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["crystaljax", "--version"])
    runpy.run_module("crystaljax", run_name="__main__")
    assert capsys.readouterr().out.startswith("crystaljax ")


def test_an_unknown_option_names_the_help_of_its_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert "crystaljax compare --help" in refused(capsys, "compare", "runs/a", "--outptu", "x")


def test_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = []
    for name in ("one", "two"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "metrics.jsonl").write_text('{"step": 1, "reward/mean": 0.5}\n')
        folders.append(str(folder))
    main(["compare", *folders, "--output", str(tmp_path / "both")])
    assert "results.csv" in capsys.readouterr().out.replace("\n", "")
    assert (tmp_path / "both" / "reward_mean.png").is_file()
    with pytest.raises(SystemExit):
        main(["compare", str(tmp_path), "--output", str(tmp_path / "both")])
    assert "is not the folder of a run" in capsys.readouterr().err
