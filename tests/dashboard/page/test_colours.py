"""Tiers can be told apart by everybody: their colours as people with each kind of colour vision see them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TypeAlias

import pytest

from tests.dashboard.page.conftest import Look
from tests.gateway.conftest import Served

Rgb: TypeAlias = tuple[float, float, float]
Matrix: TypeAlias = tuple[Rgb, Rgb, Rgb]

# In linear light, without one kind of cone: Viénot, Brettel and Mollon (1999) for the first two.
VISIONS: dict[str, Matrix] = {
    "usual": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protan": ((0.11238, 0.88762, 0), (0.11238, 0.88762, 0), (0.00401, -0.00401, 1)),
    "deutan": ((0.29275, 0.70725, 0), (0.29275, 0.70725, 0), (-0.02234, 0.02234, 1)),
    "tritan": ((1.0, 0.14461, -0.14461), (0, 0.85924, 0.14076), (0, 0.85924, 0.14076)),
}
SHIPPED = 4  # tiers; a user may have more
APART = 20  # CIE76: 2 is just seen, side by side
LIGHTNESS_OR_HUE = 3.0  # contrast with the ground that graphics need (WCAG 1.4.11)


def linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


def luminance(rgb: Rgb) -> float:
    red, green, blue = (linear(channel) for channel in rgb)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def lab(rgb: Rgb) -> Rgb:
    """CIE L*a*b* of linear light, white being D65."""
    red, green, blue = rgb
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    f: Callable[[float], float] = lambda t: t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116  # noqa: E731
    return 116 * f(y) - 16, 500 * (f(x) - f(y)), 200 * (f(y) - f(z))


def seen(rgb: Rgb, vision: Matrix) -> Rgb:
    light = [linear(channel) for channel in rgb]
    red, green, blue = (max(0.0, sum(a * b for a, b in zip(row, light, strict=True))) for row in vision)
    return lab((red, green, blue))


def colours(look: Look, gateway: Served, *, dark: bool) -> tuple[list[Rgb], Rgb]:
    """Of tiers, and of what they stand on."""
    page = look(gateway, dark=dark).open()
    found: list[list[float]] = page.evaluate(
        """() => [0, 1, 2, 3].map((i) => `tier-${i}`).concat("panel").map((name) => {
          const probe = document.createElement("i");
          probe.style.color = `var(--${name})`;
          document.body.append(probe);
          return getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map((n) => n / 255);
        })"""
    )
    *tiers, ground = ((r, g, b) for r, g, b in found)
    return tiers, ground


@pytest.mark.parametrize("dark", [False, True])
def test_tiers_look_different_to_everybody(look: Look, bare: Served, dark: bool) -> None:
    """Any two tiers, in both themes, with each kind of colour vision."""
    tiers, _ = colours(look, bare, dark=dark)
    for name, vision in VISIONS.items():
        for (i, a), (j, b) in itertools.combinations(enumerate(tiers), 2):
            distance = sum((x - y) ** 2 for x, y in zip(seen(a, vision), seen(b, vision), strict=True)) ** 0.5
            assert distance >= APART, (name, i, j, distance)


@pytest.mark.parametrize("dark", [False, True])
def test_tiers_stand_out_from_the_ground(look: Look, bare: Served, dark: bool) -> None:
    """As graphics must (WCAG 2.2, 1.4.11)."""
    tiers, ground = colours(look, bare, dark=dark)
    for tier in tiers:
        light, dim = sorted((luminance(tier), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dim + 0.05) >= LIGHTNESS_OR_HUE, tier
