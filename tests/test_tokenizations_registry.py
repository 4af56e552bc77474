"""Tokenizations by name and from users' files; what is wrong with one is said at once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from crystaljax.composition import formulas
from crystaljax.data.dataset import load
from crystaljax.rewards.completions import Completion, FormulaReward, read_completions
from crystaljax.tokenizations.base import TextFormat
from crystaljax.tokenizations.registry import (
    DEFAULT_FORMAT,
    create_format,
    create_tokenization,
    format_options,
    kind_of,
    read_specification,
    tokenization_names,
)
from crystaljax.tokenizations.text.bins import P1Bins, WyckoffBins
from crystaljax.tokenizations.text.plaid import PlaidText
from crystaljax.tokenizations.text.wyckoff import WyckoffText
from crystaljax.tokenizations.wyckoff import WyckoffTokenization

JSON_FORMAT = '''
"""Crystals as one line of JSON each."""
import json
from dataclasses import dataclass

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.tokenizations.base import Decoded
from crystaljax.tokenizations.wyckoff import WyckoffTokenization


@dataclass(frozen=True)
class JsonText:
    decimals: int = 4

    def encode(self, crystals):
        batch = crystals.to_numpy()
        texts = []
        for i, n in enumerate(batch.n_sites.tolist()):
            sites = zip(batch.wyckoff[i], batch.species[i], batch.frac[i].round(self.decimals))
            rows = [[int(w), int(z), *map(float, x % 1)] for w, z, x in list(sites)[:n]]
            cell = batch.lattice[i].round(self.decimals).astype(float).tolist()
            texts.append(json.dumps([int(batch.space_group[i]), cell, rows]))
        return texts

    def decode(self, tokens):
        n, reasons = len(tokens), [None] * len(tokens)
        group, cell = np.zeros(n, np.int32), np.zeros((n, 6), np.float32)
        wyckoff, species = np.zeros((2, n, 64), np.int32)
        frac = np.zeros((n, 64, 3), np.float32)
        for i, text in enumerate(tokens):
            try:
                group[i], cell[i], rows = json.loads(text)
                for s, (wyckoff[i, s], species[i, s], *frac[i, s]) in enumerate(rows):
                    pass
            except (ValueError, TypeError, IndexError) as error:
                reasons[i] = f"not such JSON: {error}"
        sequences = WyckoffTokenization(64)
        made = sequences.decode(
            sequences.encode(Crystals(group, wyckoff, species, frac, cell))
        )
        ok = made.ok & np.array([x is None for x in reasons])
        return Decoded(made.crystals, ok, [a or b for a, b in zip(reasons, made.reasons)])

    def pattern(self, space_groups=None, elements=None):
        return r"\\[[0-9]+, \\[[0-9., ]+\\], \\[\\[[0-9., ]+\\](?:, \\[[0-9., ]+\\])*\\]\\]"
'''


def test_names() -> None:
    assert {DEFAULT_FORMAT, "plaid", "cif"} <= set(tokenization_names("text"))
    assert tokenization_names("hybrid") == ("wyckoff",)
    assert set(tokenization_names()) == {"wyckoff", *tokenization_names("text")}
    assert create_format() == WyckoffText()
    assert create_format("plaid", coordinate_decimals=4) == PlaidText(coordinate_decimals=4)
    assert create_tokenization("wyckoff:max_sites=3") == WyckoffTokenization(3)
    for name in tokenization_names("text"):
        assert kind_of(name) == "text"
        assert isinstance(create_format(name), TextFormat)
    assert kind_of("some/file.py:Mine:decimals=3") == "text"


def test_unknown_names() -> None:
    for name in ("wyckof", "", "Plaid"):
        with pytest.raises(ValueError, match=f"is named '{name}': choose wyckoff, wyckoff-text, "):
            create_format(name)
        with pytest.raises(ValueError, match=f"is named '{name}': choose wyckoff, wyckoff-text, "):
            create_tokenization(name)
    with pytest.raises(ValueError, match="no text format: choose wyckoff-text, plaid, cif"):
        create_format("wyckoff")


def test_options_in_a_specification() -> None:
    bins = create_format("wyckoff-bins:coordinate_width=0.002,max_length=100")
    assert bins == WyckoffBins(coordinate_width=0.002, max_length=100)
    assert create_format("plaid:consistent=True") == PlaidText(consistent=True)
    assert create_format("plaid:length_decimals=3", length_decimals=4) == PlaidText(3, 4)
    assert create_format("p1-bins:symprec=None") == P1Bins()
    assert read_specification("a=b/c.py:Mine") == ("a=b/c.py:Mine", {})
    assert read_specification("c.py:Mine:a=x,b=1.5") == ("c.py:Mine", {"a": "x", "b": 1.5})


@pytest.mark.parametrize("name", tokenization_names())
def test_options_make_it_again(name: str) -> None:
    """By way of JSON, as in a model folder."""
    made = create_tokenization(name)
    options = json.loads(json.dumps(format_options(made)))
    assert create_tokenization(name, **options) == made
    first = next(iter(options))
    with pytest.raises(ValueError, match=rf"option {first} of the format {name} is (int|float)"):
        create_tokenization(f"{name}:{first}=x")


def test_options_that_are_not_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    start = "__init__(self, decimals=4): super().__init__(decimals)"
    path.write_text(WRAPPED.format(method=start))
    mine = create_format(f"{path}:Mine:decimals=3")
    assert mine.encode(mine.decode(["221\n4.0\nPo 1a"]).crystals) == ["221\n4.000\nPo 1a"]
    with pytest.raises(ValueError, match=r"Mine takes options .*attributes \(decimals\): make"):
        format_options(mine)


def test_options_that_there_are_not() -> None:
    with pytest.raises(ValueError, match=r"the format cif are coordinate_decimals, .*'x'"):
        create_format("cif", x=1)
    for decimals, message in ((10, "choose 0 to 9"), (2.5, "is int"), ("2", "is int")):
        with pytest.raises(ValueError, match=message):
            create_format("plaid", length_decimals=decimals)
    for wrong in ("consistent=1", "length_decimals=True", "length_decimals=two"):
        with pytest.raises(ValueError, match=r"option .* of the format plaid is (int|bool), not"):
            create_format(f"plaid:{wrong}")
    with pytest.raises(ValueError, match=r"option symprec of the format p1-bins is float \| None"):
        create_format("p1-bins:symprec=x")
    for wrong in ("a=1,a=2", "a=1,2", "=1"):
        with pytest.raises(ValueError, match="write options as key=value,key=value, each once"):
            create_format(f"plaid:{wrong}")


def test_a_format_of_one_s_own(tmp_path: Path) -> None:
    """From its file through encoding and decoding to rewards of answers."""
    path = tmp_path / "my formats.py"
    path.write_text(JSON_FORMAT)
    format = create_format(f"{path}:JsonText", decimals=5)
    crystals = load("prototypes").crystals[::50]
    texts = format.encode(crystals)
    assert texts[0].startswith("[")
    names = formulas(crystals)
    answers = [
        Completion({"formula": name}, text, True) for name, text in zip(names, texts, strict=True)
    ]
    answers[3] = answers[3]._replace(text="no JSON")
    read = read_completions(answers, format)
    right = np.arange(len(answers)) != 3
    np.testing.assert_array_equal(read.info["read"], right)
    np.testing.assert_array_equal(read.info["as_asked"], right)
    assert "not such JSON" in str(read.reasons[3])
    judged = FormulaReward(format)(answers)
    np.testing.assert_allclose(judged.value[judged.ok], 1)
    with pytest.raises(ValueError, match=r"options of the format .* are decimals"):
        create_format(f"{path}:JsonText", digits=5)


WRAPPED = """
from crystaljax.tokenizations.text.wyckoff import WyckoffText

class Mine(WyckoffText):
    def {method}
"""


DECODE = "decode(self, tokens): return "
READ = f"{DECODE}super().decode"
PATTERN = "pattern(self, space_groups=None, elements=None): return "


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (f"{READ}([x[1:] for x in tokens])", "decode refuses what encode writes"),
        (
            f"{READ}([x.replace('Ti', 'Zr') for x in tokens])",
            "another crystal than encode wrote: '62",
        ),
        (
            f"{READ}([x.replace('4.592', '9.5') for x in tokens])",
            "another crystal than encode wrote: '136",
        ),
        (f"{DECODE}[None for x in tokens]", "has to return a Decoded"),
        (
            f"{DECODE}__import__('dataclasses').replace(super().decode(tokens), crystals=None)",
            "has to return a Decoded",
        ),
        (f"{READ}(tokens[1:])", "a row for each text"),
        (f"{READ}([int(x) for x in tokens])", "decode raises ValueError"),
        (
            f"{READ}([x or '221\\n4\\nPo 1a' for x in tokens])",
            "in an empty or senseless text",
        ),
        ("encode(self, crystals): return super().encode(crystals)[:1]", "one text for each"),
        ("encode(self, crystals): return [1] * len(crystals)", "one text for each"),
        ("encode(self, crystals): return 'x' * len(crystals)", "one text for each"),
        ("encode(self, crystals): return None", "one text for each"),
        ("encode(self, crystals): raise RuntimeError('why')", "encode raises RuntimeError: why"),
        (f"{PATTERN}'x'", "does not match what encode writes: '2"),
        (
            f"{PATTERN}super().pattern(space_groups, ['Cf', 'O', 'Zr'])",
            r"space groups \[62\] and elements \['O', 'Ca', 'Ti'\] does not match",
        ),
        (
            f"{PATTERN}super().pattern(space_groups or range(1, 200), elements)",
            "space groups all and elements all does not match what encode writes: '205",
        ),
        (f"{PATTERN}'('", "the pattern is no regular expression"),
        (f"{PATTERN}None", "the pattern is no regular expression"),
        ("pattern(self): return '.*'", "pattern raises TypeError"),
        ("vocabulary(self): return ['2', ' ']", "has not all words of what encode writes: '2"),
        ("vocabulary(self): return []", "vocabulary raises ValueError"),
    ],
)
def test_contradictions(tmp_path: Path, method: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(WRAPPED.format(method=method))
    with pytest.raises(ValueError, match=f"mine.py:Mine: .*{message}"):
        create_format(f"{path}:Mine")


def test_files_without_a_format(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("class Half:\n    def encode(self): ...\n\nnumber = 3\ndef Call(): ...\n")
    for source, message in (
        (str(path), "names no class: write path/to/file.py:class"),
        (f"{path}:Absent", "defines no class 'Absent'"),
        (f"{path}:number", "defines no class 'number'"),
        (f"{path}:Call", "defines no class 'Call'"),
        (f"{path}:Half", "is no text format: it lacks decode and pattern"),
    ):
        with pytest.raises(ValueError, match=message):
            create_format(source)
    with pytest.raises(FileNotFoundError, match=r"no Python file .*absent\.py"):
        create_format(f"{tmp_path}/absent.py:Mine")
