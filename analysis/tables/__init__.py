"""Tidy tables: one row per trial, per record, per arm."""
