"""Which trials are pending, which train together, and what that costs."""
