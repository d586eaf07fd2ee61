"""What a drawing is made from: a variant, two colours and three proportions, and shades of a colour.

The drawings themselves, one function per category, lie in the `drawings_*` files beside this one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from osmf_models.simulator.shapes import Array, Colour, Layer

STEEL: Colour = (0.66, 0.68, 0.71)
INK: Colour = (0.13, 0.13, 0.15)
PAPER: Colour = (0.88, 0.87, 0.84)


@dataclass(frozen=True)
class Look:
    """What distinguishes one product of a category from another.

    Attributes:
        variant: name of the shape.
        colour: main colour, RGB in [0, 1].
        accent: second colour, RGB in [0, 1].
        proportions: three numbers in [-1, 1]: width, height and detail.
    """

    variant: str
    colour: Colour
    accent: Colour
    proportions: tuple[float, float, float]


Drawing = Callable[[Array, Array, Look], list[Layer]]


def tinted(colour: Colour, factor: float) -> Colour:
    """Returns the colour, darker for a factor below 1 and lighter above."""
    red, green, blue = (min(0.94, channel * factor) for channel in colour)
    return red, green, blue


def blended(colour: Colour, other: Colour, share: float) -> Colour:
    """Returns the mix with `share` of the other colour, in [0, 1]."""
    red, green, blue = (one + share * (two - one) for one, two in zip(colour, other, strict=True))
    return red, green, blue


def readable_on(colour: Colour) -> Colour:
    """Returns ink or paper, whichever stands out from the colour."""
    return PAPER if sum(colour) < 1.5 else INK


def gloss(distance: Array, strength: float = 0.35, softness: float = 0.04) -> Layer:
    """Returns a soft highlight on what is painted already."""
    return Layer(distance, (0.94, 0.94, 0.94), 0.0, strength, softness, is_on_product=True)


def shadow(distance: Array, strength: float = 0.4, softness: float = 0.04) -> Layer:
    """Returns a soft shadow on what is painted already."""
    return Layer(distance, (0.05, 0.05, 0.07), 0.0, strength, softness, is_on_product=True)


def mark(distance: Array, colour: Colour, opacity: float = 1.0) -> Layer:
    """Returns a sharp, flat mark on what is painted already: a seam, a print, a button."""
    return Layer(distance, colour, 0.15, opacity, is_on_product=True)
