"""How samples are judged, one file a metric; `evaluate.METRICS` lists them, `docs/metrics.md` explains them."""
