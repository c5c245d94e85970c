"""Numbers and levels of factors as people write them. Imports nothing slow: `vistudy plan` prints them, too."""

from __future__ import annotations

import math
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


def points(share: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return f"{100 * share:+.1f}" if math.isfinite(share) else "unknown"


def percent(share: float) -> str:
    """A share in percent."""
    return f"{100 * share:.1f} %" if math.isfinite(share) else "unknown"


def p_text(p: float) -> str:
    """A p value in three digits."""
    return f"{p:.2g}" if p >= 0.0001 else "< 0.0001"


def p_equals(p: float) -> str:
    """A p value in a sentence: `p = 0.012` or `p < 0.0001`."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"
