"""Limits of a study that the documentation states, too."""

from __future__ import annotations

PILOT_SCALES = (1.0, 0.316, 0.1, 0.0316)
"""Scales of a matched hyperparameter that are tried: half a decade apart, three digits."""


PILOT_CONFIGS = 8
"""Configurations on which they are tried, with the block's first seed."""


MAX_TRIALS = 10_000
"""More than this many trials need a yes."""


LIMIT_TRIALS = 1_000_000
"""More than this many trials are refused, yes or no: the plan itself would not fit."""


STARTUP_TRIALS = 10
"""Values that must be told before Optuna's TPE takes over from points drawn at random."""
