"""From arrays to Matplotlib artists: each chart takes arrays and an Axes, and returns what it drew."""
