"""Networks of K trials at once, and their gradients."""
