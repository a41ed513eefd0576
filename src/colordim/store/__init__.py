"""Where columns live."""
