"""Where people already look: what a run holds, epoch by epoch, for TensorBoard, W&B and spreadsheets.

A :class:`~colordim.publish.publisher.Publisher` gives each epoch to targets once it is over. ``record(log_to=...)`` runs
one beside the training; :func:`~colordim.publish.publisher.export` runs one over a finished run.
"""
