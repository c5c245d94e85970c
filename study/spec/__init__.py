"""The study file: read, checked, refused with file, line and key, frozen into a `Study`."""
