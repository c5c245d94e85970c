"""Effects with their intervals: pure functions of an arm table."""
