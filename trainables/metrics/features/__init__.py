"""Feature spaces in which images are compared."""
