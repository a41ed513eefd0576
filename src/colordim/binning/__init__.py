"""From a tensor to counts and moments."""
