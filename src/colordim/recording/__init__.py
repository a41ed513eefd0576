"""What is attached to a model while it is recorded, and detached again, errors included."""
