"""Reads outputs of other models: candidates as texts, formulas, or crystals."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from crystaljax.alloys.baselines.shots import final_answer
from crystaljax.alloys.composition import TAGS, Tags
from crystaljax.alloys.known import EntriesError, read_compositions, suffixes, text_lines
from crystaljax.composition import symbol
from crystaljax.data.readers import read

Mixture = Mapping[str, float] | None


@dataclass(frozen=True)
class Outputs:
    """Samples of a model: texts of candidates, or compositions."""

    texts: list[str] | None
    """N texts of candidates; None if the samples are compositions."""
    mixtures: list[Mixture] | None
    """N compositions (amounts), None where there is none; None if the samples are texts."""

    def of_elements(self, elements: Collection[str]) -> tuple[Outputs, int]:
        """The outputs without compositions of other elements, and the number of these.

        As in arXiv 2511.12036 for crystals of general models; texts are not changed.
        """
        if self.mixtures is None:
            return self, 0
        allowed = set(elements)
        kept = [one for one in self.mixtures if one is None or one.keys() <= allowed]
        return Outputs(None, kept), len(self.mixtures) - len(kept)


def read_outputs(path: str | PathLike[str], tags: Tags = TAGS) -> Outputs:
    """Samples in a file.

    Texts: JSONL with a "text" in each line (as in journals of samples), or lines with the tag of
    the matrix (<BCC>); if a text has reasoning, its last candidate counts. A text of null is a
    request that failed, and no sample. Compositions: a CSV with a column of formulas, or lines of
    formulas. Crystals: any file or folder that `data.readers.read` reads; unreadable ones are None.
    ValueError for an empty file, and for JSONL without texts and crystals; FileNotFoundError.
    """
    path = Path(path)
    kinds = suffixes(path)
    texts = _texts(path, tags) if {".jsonl", ".txt"} & kinds else []
    if texts:
        return Outputs([final_answer(text, tags) for text in texts], None)
    mixtures: list[Mixture] = []
    if {".txt", ".csv"} & kinds:
        try:
            mixtures = [*read_compositions(path)]
        except EntriesError:  # it has only structures
            mixtures = _crystals(path)
    else:
        mixtures = _crystals(path)
    if ".jsonl" in kinds and not any(mixtures):
        raise ValueError(
            f'{path} has no texts ("text" in a line) or crystals: of an endpoint\'s run, give a'
            " journal of answers, such as generator.jsonl of its dialogues"
        )
    if not mixtures:
        raise ValueError(f"{path} has no texts, compositions or crystals")
    return Outputs(None, mixtures)


def _texts(path: Path, tags: Tags) -> list[str]:
    """Texts of candidates in a file of lines; empty for lines of something else."""
    lines = text_lines(path)
    if ".jsonl" not in suffixes(path):
        return lines if any(f"<{tags.matrix}>" in line for line in lines) else []
    try:
        entries = [json.loads(line) for line in lines]
    except ValueError as error:
        raise ValueError(f"{path} is no JSONL: {error}") from error
    found = [one["text"] for one in entries if isinstance(one, dict) and "text" in one]
    return [str(text) for text in found if text is not None]


def _crystals(path: Path) -> list[Mixture]:
    """Compositions of crystals."""
    found: list[Mixture] = []
    for record in read(path):
        if record.cell is None:
            found.append(None)
            continue
        numbers = Counter(record.cell.species.tolist())
        found.append({symbol(z): float(n) for z, n in numbers.items()})
    return found
