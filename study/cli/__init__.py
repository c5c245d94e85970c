"""The command `vistudy`."""
