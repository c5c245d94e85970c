"""The mathematics: packed nets, losses, the training loop, data and metrics. No Ray outside `tune.py`, no MLflow."""
