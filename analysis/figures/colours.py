"""Colours of a share of stable trials: sand to deep blue, readable for colour-blind people and in grey."""

from __future__ import annotations

INK, GREY, LINE, PAPER = "#101418", "#5f6873", "#9aa3ad", "#ffffff"
THEORY = "#c2410c"
"""Lines of what theory says; no colour of the cells comes near it."""

_ANCHORS = ("#f1e9d8", "#c3d6cd", "#86b9c1", "#3f8aa8", "#15517c")
"""At 0, 1/4, 1/2, 3/4 and 1; their lightness falls in equal steps."""


def share_colour(share: float) -> str:
    """Colour of a share in [0, 1], as #rrggbb. Raises ValueError outside of it."""
    if not 0 <= share <= 1:
        raise ValueError(f"share_colour: a share is within 0 and 1, got {share}")
    place = share * (len(_ANCHORS) - 1)
    i = min(int(place), len(_ANCHORS) - 2)
    low, high = _rgb(_ANCHORS[i]), _rgb(_ANCHORS[i + 1])
    mixed = (round(a + (b - a) * (place - i)) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{c:02x}" for c in mixed)


def text_colour(background: str) -> str:
    """Dark or white text, whichever has the higher contrast."""
    return max((INK, PAPER), key=lambda text: contrast(text, background))


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours, 1 to 21. Source: WCAG 2.2."""
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb, in [0, 1]. Source: WCAG 2.2."""
    parts = (c / 255 for c in _rgb(colour))
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
