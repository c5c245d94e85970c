"""Levels of a factor as people write them. Imports nothing that takes time: `vistudy plan` prints them, too."""

from __future__ import annotations

from typing import Any

_NORM = {"bn": "on", "none": "off", "none_ref_nobias": "off, no biases"}
_MISSING = ("<NA>", "nan")
"""pandas' NA and any NaN, as text."""


def level_text(column: str | None, value: Any, *, exponent: bool | None = None) -> str:
    """A level as people write it: 1e-4, 0.5, on, off. `exponent`: force it for numbers, or forbid it."""
    if value is None or str(value) in _MISSING:
        return "–"
    if column == "norm":
        return _NORM.get(str(value), str(value))
    if str(value) in ("True", "False"):  # numpy's, too
        return "on" if value else "off"
    if isinstance(value, float):  # numpy's float64 is one
        if value != 0 and (needs_exponent(value) if exponent is None else exponent):
            mantissa, power = f"{value:.2e}".split("e")
            return f"{float(mantissa):g}e{int(power)}"
        return f"{value:.3g}" if abs(value) < 1e3 else f"{value:g}"
    return str(value)


def needs_exponent(value: float) -> bool:
    """Whether a number is written with a power of ten."""
    return value != 0 and not 0.01 <= abs(value) < 1e4
