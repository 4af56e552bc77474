"""Rewards for materials' properties: large values, target values, ranges and figures of merit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from crystaljax.crystal import Crystals
from crystaljax.rewards.base import RewardBatch, register
from crystaljax.rewards.bounds import UNNAMED, Quantity, RewardBounds
from crystaljax.rewards.properties import PropertyModel, create_property

UNITS = {"band_gap": "eV", "formation_energy": "eV/atom"}
"""Units of the properties that have one."""


@dataclass(frozen=True)
class Property:
    """A function of one property, by default the property itself; `info["property"]` holds it."""

    model: PropertyModel
    of: Callable[[np.ndarray], np.ndarray] = np.positive
    """Rewards [B] of values [B] of the property."""
    quantity: Quantity = UNNAMED
    """Name and unit of the reward."""

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        value, reasons = self.model.predict(crystals)
        return RewardBatch.from_values(self.of(value), {"property": value}, reasons)


@dataclass(frozen=True)
class FigureOfMerit:
    """ε_electronic · E_gap in eV. Both are at least 0, and their product is at most `maximum`.

    CrystalFormer-RL maximises it to find dielectrics (Cao & Wang, arXiv 2504.02367). The bound
    keeps extreme predictions from dominating. `info` holds "dielectric" and "band_gap" (eV) as
    predicted.
    """

    dielectric: PropertyModel
    band_gap: PropertyModel
    maximum: float = 100.0

    @property
    def quantity(self) -> Quantity:
        """Quantity in eV, from 0 to the maximum."""
        return Quantity("figure of merit", "eV", RewardBounds(low=0.0, high=self.maximum))

    def __call__(self, crystals: Crystals) -> RewardBatch:
        """Rewards of B crystals."""
        parts = {
            "dielectric": self.dielectric.predict(crystals),
            "band_gap": self.band_gap.predict(crystals),
        }
        merit = np.prod([np.maximum(part.value, 0) for part in parts.values()], axis=0)
        reasons = [
            next(
                (
                    f"{name}: {reason}"
                    for name, reason in zip(parts, of_item, strict=True)
                    if reason
                ),
                None,
            )
            for of_item in zip(*(part.reasons for part in parts.values()), strict=True)
        ]
        info = {name: part.value for name, part in parts.items()}
        return RewardBatch.from_values(np.minimum(merit, self.maximum), info, reasons)


def target_value(target: float, scale: float, shape: str = "linear") -> Callable[..., np.ndarray]:
    """Closeness of values [B] to a target: −|x − target| / scale, or "gaussian",
    exp(−((x − target) / scale)² / 2). ValueError for a scale not above 0 or another shape."""
    _check_scale(scale)
    if shape == "linear":
        return lambda x: -np.abs(x - target) / scale
    if shape == "gaussian":
        return lambda x: np.exp(-(((x - target) / scale) ** 2) / 2)
    raise ValueError(f"no shape {shape!r} of a target: choose linear or gaussian")


def target_range(low: float, high: float, scale: float) -> Callable[..., np.ndarray]:
    """0 for values [B] within [low, high], minus the distance to it over `scale` outside.

    ValueError for a scale not above 0, or low above high.
    """
    _check_scale(scale)
    if not low <= high:
        raise ValueError(f"no value lies in [{low}, {high}]: low is above high")
    return lambda x: -np.maximum(np.maximum(low - x, x - high), 0) / scale


def _check_scale(scale: float) -> None:
    if not scale > 0:
        raise ValueError(f"the scale of a target must be above 0, not {scale}")


def _model(model: str | PropertyModel, options: dict[str, Any]) -> PropertyModel:
    return create_property(model, **options) if isinstance(model, str) else model


def _name(model: str | PropertyModel) -> str:
    return model.replace("_", " ") if isinstance(model, str) else "property"


@register("property")
def create_value(model: str | PropertyModel, weight: float = 1.0, **options: Any) -> Property:
    """`weight` times a property, by the name of its model. Further options are those of
    `create_property`."""
    name = _name(model) if weight == 1 else f"{weight:g} × {_name(model)}"
    unit = UNITS.get(model, "") if isinstance(model, str) else ""
    return Property(_model(model, options), lambda x: weight * x, Quantity(name, unit))


@register("target_value")
def create_target_value(
    model: str | PropertyModel,
    target: float,
    scale: float = 1.0,
    shape: str = "linear",
    **options: Any,
) -> Property:
    """Closeness of a property to `target`; see `target_value`."""
    nearness = target_value(target, scale, shape)
    quantity = Quantity(f"nearness of {_name(model)} to {target:g}")
    return Property(_model(model, options), nearness, quantity)


@register("target_range")
def create_target_range(
    model: str | PropertyModel,
    low: float = -np.inf,
    high: float = np.inf,
    scale: float = 1.0,
    **options: Any,
) -> Property:
    """A property within [low, high]; see `target_range`."""
    outside = target_range(low, high, scale)
    quantity = Quantity(f"nearness of {_name(model)} to {low:g} ... {high:g}")
    return Property(_model(model, options), outside, quantity)


@register("figure_of_merit")
def create_figure_of_merit(
    dielectric: str | PathLike | PropertyModel,
    band_gap: str | PathLike | PropertyModel | None = None,
    maximum: float = 100.0,
) -> FigureOfMerit:
    """`FigureOfMerit` of two models.

    `dielectric`: a model, or its folder, such as checkpoints/dielectric-mp; `band_gap`: a model,
    or the folder of the MEGNet (default: downloaded), which the dielectric model reads as well.
    """
    folder = band_gap if band_gap is None or isinstance(band_gap, str | PathLike) else None
    if isinstance(dielectric, str | PathLike):
        dielectric = create_property("dielectric", folder=dielectric, megnet=folder)
    if band_gap is None or isinstance(band_gap, str | PathLike):
        band_gap = create_property("band_gap", folder=band_gap)
    return FigureOfMerit(dielectric, band_gap, maximum)
