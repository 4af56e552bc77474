"""Pictures of crystals: atoms as shaded balls in their unit cell, drawn with matplotlib."""

from __future__ import annotations

import itertools
import json
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from crystaljax.composition import symbol
from crystaljax.crystal import AtomicCell, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAX_DRAWN = 400
"""Cells with more atoms than this are drawn as an empty box with a note."""

_EDGE = 0.02  # atoms this close to a face of the cell (fraction) are drawn on both sides
_BOND = 1.12  # longest bond in sums of covalent radii
_RADIUS = 0.42  # of a ball, in covalent radii
_SEGMENTS = 10  # of an edge of the cell, each drawn at its own depth
_LIGHT = np.array([-0.45, 0.55, 0.7])  # where the light comes from: left, above, in front


class Style(NamedTuple):
    """Colour and size of an element."""

    colour: np.ndarray
    """[3] RGB in 0-1 (Jmol)."""
    radius: float
    """Covalent radius in Å (Cordero et al., Dalton Trans. 2008, 2832)."""


@cache
def styles() -> dict[int, Style]:
    """Colour and covalent radius of every element, by atomic number."""
    path = Path(__file__).with_name("element_styles.json")
    table = json.loads(path.read_text(encoding="utf-8"))["styles"]
    return {
        z: Style(np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)]) / 255, radius)
        for z, (code, radius) in enumerate(table.values(), start=1)
    }


def draw_cell(
    axes: Axes, cell: AtomicCell, *, azimuth: float = 18.0, elevation: float = 14.0
) -> None:
    """Draw one unit cell into `axes`: its edges, its atoms (those on a face twice) and bonds.

    `cell` has its c axis upwards; the view is turned by `azimuth` and raised by `elevation`,
    in degrees. Farther things are paler. A legend names the elements.
    """
    view = _rotation(azimuth, elevation)
    axes.set_axis_off()
    axes.set_aspect("equal")
    corners = np.array(list(itertools.product((0, 1), repeat=3)), float) @ cell.matrix @ view
    depth = np.ptp(corners[:, 1]) or 1.0
    middle = (corners.max(axis=0) + corners.min(axis=0)) / 2

    def haze(y: float) -> float:
        """0 in front to 0.5 at the back of the cell."""
        return float(np.clip(0.25 + 0.5 * (y - middle[1]) / depth, 0, 0.5))

    for i, j in itertools.combinations(range(8), 2):
        if bin(i ^ j).count("1") == 1:  # corners that differ in one coordinate share an edge
            points = np.linspace(corners[i], corners[j], _SEGMENTS + 1)
            for (x1, y1, z1), (x2, y2, z2) in itertools.pairwise(points):
                y = (y1 + y2) / 2
                axes.plot([x1, x2], [z1, z2], color=str(0.35 + haze(y)), lw=0.9, zorder=-y)
    largest = 0.0
    if len(cell.species) <= MAX_DRAWN:
        positions, species = _with_images(cell)
        largest = _draw_atoms(axes, positions @ view, species, haze)
        _legend(axes, np.unique(cell.species))
    else:
        note = f"{len(cell.species)} atoms"
        axes.text(middle[0], middle[2], note, ha="center", va="center", zorder=1e9)
    half = np.ptp(corners[:, [0, 2]], axis=0).max() / 2 + largest + 0.1
    axes.set_xlim(middle[0] - half, middle[0] + half)
    axes.set_ylim(middle[2] - half, middle[2] + half)


def _draw_atoms(axes: Axes, points: np.ndarray, species: np.ndarray, haze: Any) -> float:
    """Balls at points [N, 3] (x right, y into the page, z up) and their bonds; largest radius."""
    look = [styles()[int(z)] for z in species]
    radii = np.array([style.radius for style in look])
    for i, j in _bonds(points, radii):
        middle = (points[i] + points[j]) / 2
        for end in (i, j):
            (x1, y1, z1), (x2, y2, z2) = points[end], middle
            y = (y1 + y2) / 2
            colour = _pale(look[end].colour * 0.8, haze(y))
            axes.plot([x1, x2], [z1, z2], color=colour, lw=1.8, zorder=-y, solid_capstyle="butt")
    sizes = _RADIUS * radii
    for (x, y, z), style, r in zip(points, look, sizes, strict=True):
        ball = _ball(tuple(style.colour))
        ball[..., :3] = _pale(ball[..., :3], haze(y))
        box = (x - r, x + r, z - r, z + r)
        axes.imshow(ball, extent=box, zorder=-y + r / 2, interpolation="bilinear", aspect="equal")
    return float(sizes.max(initial=0))


def _ball(colour: tuple[float, float, float], pixels: int = 96) -> np.ndarray:
    """RGBA image [pixels, pixels, 4] of a lit ball: diffuse light, a highlight, a dark rim."""
    z, x = np.mgrid[1 : -1 : pixels * 1j, -1 : 1 : pixels * 1j]
    inside = x**2 + z**2
    y = np.sqrt(np.clip(1 - inside, 0, 1))
    light = _LIGHT / np.linalg.norm(_LIGHT)
    facing = np.clip(x * light[0] + z * light[1] + y * light[2], 0, 1)
    rim = np.clip((1 - np.sqrt(inside)) / 0.07, 0, 1)
    shade = (0.55 + 0.5 * facing) * (0.45 + 0.55 * rim)
    image = np.empty((pixels, pixels, 4))
    image[..., :3] = np.clip(np.array(colour) * shade[..., None], 0, 1)
    image[..., :3] += (1 - image[..., :3]) * (0.65 * facing[..., None] ** 18)
    image[..., 3] = np.clip((1 - np.sqrt(inside)) * pixels / 2, 0, 1)
    return image


def _pale(colour: np.ndarray, haze: float) -> np.ndarray:
    """The colour mixed with white."""
    return colour + (1 - colour) * haze


def _with_images(cell: AtomicCell) -> tuple[np.ndarray, np.ndarray]:
    """Positions [M, 3] in Å and species [M] of the atoms, those on a face on both sides."""
    frac = np.asarray(cell.frac, float)
    frac = wrapped(frac + _EDGE) - _EDGE
    shifts = np.array(list(itertools.product((0, 1), repeat=3)))
    shown = ((shifts[None] == 0) | (np.abs(frac) <= _EDGE)[:, None]).all(axis=-1)
    atoms, images = np.nonzero(shown)
    return (frac[atoms] + shifts[images]) @ cell.matrix, np.asarray(cell.species)[atoms]


def _bonds(points: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Index pairs [K, 2] of atoms closer than the sum of their radii allows."""
    distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
    close = (distance < _BOND * (radii[:, None] + radii)) & (distance > 0.3)
    return np.argwhere(np.triu(close, 1))


def _rotation(azimuth: float, elevation: float) -> np.ndarray:
    """Matrix [3, 3] that turns row vectors into the view: x right, y into the page, z up."""
    a, e = np.radians([azimuth, elevation])
    turn = np.array([[np.cos(a), np.sin(a), 0], [-np.sin(a), np.cos(a), 0], [0, 0, 1]])
    lean = np.array([[1, 0, 0], [0, np.cos(e), np.sin(e)], [0, -np.sin(e), np.cos(e)]])
    return turn @ lean


def _legend(axes: Axes, species: np.ndarray) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], ls="", marker="o", ms=6, mec="0.3", mew=0.5,
            mfc=tuple(styles()[int(z)].colour), label=symbol(int(z)),
        )
        for z in species
    ]  # fmt: skip
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.02),
        ncols=min(len(handles), 5),
        frameon=False,
        fontsize=8,
        handletextpad=0.1,
        columnspacing=0.9,
        borderaxespad=0,
    )


def formula_text(formula: str) -> str:
    """A formula for matplotlib, its numbers lowered: "Fe2O3" -> "Fe$_{2}$O$_{3}$"."""
    return re.sub(r"(\d+)", r"$_{\1}$", formula)


@cache
def space_group_text(number: int) -> str:
    """The short Hermann-Mauguin symbol for matplotlib: screw axes lowered, bars over numbers."""
    import gemmi

    # gemmi's symbol separates the directions ("P 63/m m c"), so that "63" can only be a screw.
    full = gemmi.get_spacegroup_reference_setting(number).hm.split()
    short = [part for part in full if part != "1"] if len(full) == 4 and number < 16 else full
    screws = [re.sub(r"(\d)(\d)", r"\1_\2", part) for part in short]
    return "$" + "".join(re.sub(r"-(\d)", r"\\bar{\1}", part) for part in screws) + "$"
