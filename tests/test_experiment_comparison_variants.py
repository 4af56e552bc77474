"""Variants of a comparison, their runs and results."""

import json
from pathlib import Path

import pytest

from crystaljax.experiment.comparison.runs import RESULT_FILE, Run
from crystaljax.experiment.comparison.variants import Variant, selected, settled, variants_of
from crystaljax.tokenizations.registry import create_format, tokenization_names


def test_all_tokenizations_make_variants_and_the_hybrid_is_not_cut() -> None:
    found = variants_of(tokenization_names(), ["own", "bpe"], ["canonical", "augmented"])
    hybrid = [variant for variant in found if not variant.is_text]
    assert hybrid == [Variant("wyckoff"), Variant("wyckoff", None, "augmented")]
    assert len(found) == 2 + 4 * len(tokenization_names("text"))
    assert len({variant.folder for variant in found}) == len(found)
    assert len({variant.label for variant in found}) == len(found)


def test_options_make_variants_of_one_tokenization() -> None:
    names = ["wyckoff-bins:max_length=60.0", "wyckoff-bins:max_length=90.0"]
    folders = {variant.folder for variant in variants_of(names, ["own"], ["canonical"])}
    assert len(folders) == 2


def test_unknown_and_none_are_errors() -> None:
    with pytest.raises(ValueError, match="no tokenization is named 'smiles'"):
        variants_of(["smiles"], ["own"], ["canonical"])
    with pytest.raises(ValueError, match="nothing to compare"):
        variants_of(["cif"], [], ["canonical"])
    variants = variants_of(["cif", "wyckoff"], ["own"], ["canonical"])
    with pytest.raises(
        ValueError, match="'plaid', which is not compared here: choose among cif; wyckoff"
    ):
        selected(variants, ["plaid"])
    assert selected(variants, ["cif"]) == variants[:1]
    assert selected(variants, []) == variants


def test_texts_without_words_of_their_own_are_cut_into_symbols() -> None:
    for name, cutting in (("wyckoff-bins", "own"), ("wyckoff-text", "symbols")):
        assert settled(Variant(name, "own"), create_format(name)).cutting == cutting


def test_results_are_kept_whole_and_found_again(tmp_path: Path) -> None:
    run = Run(Variant("cif", "own"), "search", 1, 3e-3)
    assert run.result(tmp_path) is None
    run.finish(tmp_path, {"nll": 2.5})
    found = run.result(tmp_path)
    assert found is not None
    assert found["nll"] == 2.5
    assert found["run"]["variant"]["tokenization"] == "cif"
    file = tmp_path / "runs" / "cif-own-canonical" / "search-lr0.003-seed1" / RESULT_FILE
    assert json.loads(file.read_text()) == found
    file.write_text('{"nll": 2.', encoding="utf-8")
    with pytest.raises(ValueError, match=r"is damaged .* remove it"):
        run.result(tmp_path)
