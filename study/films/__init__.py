"""Trains one trial again, compares it with its records, and films it."""
