"""Coverage and precision: which modes samples reach, and whether they look like data."""
