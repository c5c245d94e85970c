"""Declares, plans and runs a study."""
