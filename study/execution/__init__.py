"""Trains packs on Ray Tune or in this process: retries, watchdog, preflight."""
