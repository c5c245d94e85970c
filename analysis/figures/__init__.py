"""What a figure shows, and how it is drawn."""
