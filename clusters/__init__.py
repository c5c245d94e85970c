"""Where a study runs: one backend a file."""
