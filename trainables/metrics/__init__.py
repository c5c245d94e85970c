"""Metrics of samples, one file per metric; `evaluate.METRICS` lists them, `docs/metrics.md` explains them."""
