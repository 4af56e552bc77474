"""Levels of theory: which energies of potentials may be compared with which hulls.

Energies by different functionals, Hubbard corrections or pseudopotentials differ by tenths of an
eV/atom. Differences between stable and unstable crystals are much smaller.
"""

from __future__ import annotations

from pathlib import Path

MP = "MP"
MP2020 = "MP2020"
MP_R2SCAN = "MP-r2SCAN"
MATPES_PBE = "MatPES-PBE"
MATPES_R2SCAN = "MatPES-r2SCAN"
OMAT24 = "OMat24"

LEVELS = {
    MP: "PBE(+U) with the settings of the Materials Project, without corrections",
    MP2020: "PBE(+U) with the settings of the Materials Project and its MP2020 corrections",
    MP_R2SCAN: "r2SCAN with the settings of the Materials Project",
    MATPES_PBE: "PBE with the settings of MatPES, without Hubbard U (arXiv 2503.04070)",
    MATPES_R2SCAN: "r2SCAN with the settings of MatPES (arXiv 2503.04070)",
    OMAT24: "PBE(+U) with newer pseudopotentials than the Materials Project's (arXiv 2410.12771)",
}
"""Levels with known names. A hull or a potential may also use another name."""


class LevelError(ValueError):
    """Energies of one level of theory cannot be compared with a hull of another."""


def split_level(source: str) -> tuple[str, str | None]:
    """A name or path, and the level after its last "@" (None without one), in any letter case."""
    name, at, level = source.rpartition("@")
    if not at or not name or "/" in level or Path(source).exists():
        return source, None
    return name, known_level(level)


def known_level(text: str) -> str:
    """A level in its usual spelling, if it is a known one; ValueError if it is empty."""
    text = text.strip()
    if not text:
        raise ValueError(f"a level of theory is empty: name one, such as {', '.join(LEVELS)}")
    return {level.lower(): level for level in LEVELS}.get(text.lower(), text)


def needs_correction(potential: str, level: str | None, hull: str, hull_level: str) -> bool:
    """Whether MP2020 corrections bring a potential's energies to its hull's level.

    LevelError, saying what to do, if the energies cannot be compared or `level` is not known.
    """
    if level is None:
        raise LevelError(
            f"the level of theory that {potential} was trained on is not known, so that no hull can"
            " be told to fit: name it after the weights, as in nequix:FILE@MP or matgl:FOLDER@LEVEL"
            f" (known levels: {', '.join(LEVELS)})"
        )
    if level == hull_level:
        return False
    if (level, hull_level) == (MP, MP2020):
        return True
    raise LevelError(
        f"{potential} gives energies of the level {_described(level)}; the hull {hull!r} is of the"
        f" level {_described(hull_level)}: energies above it would mean nothing. Give a hull of the"
        f" level {level} (a file of computed entries, its level stated in the file or as"
        f" FILE@{level}), or a potential of the level {hull_level}"
    )


def _described(level: str) -> str:
    return f"{level} ({LEVELS[level]})" if level in LEVELS else level
