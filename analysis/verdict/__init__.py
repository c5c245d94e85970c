"""The pre-registered decision."""
