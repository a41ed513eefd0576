"""colordim: the histogram of every batch of every layer, recorded, drawn and read."""
