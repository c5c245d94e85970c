"""`vistudy report`."""
