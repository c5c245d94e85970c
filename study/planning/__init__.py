"""From a `Study` to its trials: grids, samples, arms, adaptive rounds."""
