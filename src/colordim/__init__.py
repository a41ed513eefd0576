"""colordim: the histogram of every batch of every layer, recorded, drawn and read.

>>> import colordim
>>> with colordim.record(model) as rec:  # doctest: +SKIP
...     train()
>>> rec.run.colorful()  # doctest: +SKIP
"""

from colordim.api import Recording, observe, open, record
from colordim.axis import Axis, LinearAxis, SignedLogAxis
from colordim.column import Stream
from colordim.errors import ColordimError, ColordimWarning, TrainingStopped
from colordim.views import Run

__all__ = [
    "Axis",
    "ColordimError",
    "ColordimWarning",
    "LinearAxis",
    "Recording",
    "Run",
    "SignedLogAxis",
    "Stream",
    "TrainingStopped",
    "__version__",
    "observe",
    "open",
    "record",
]

__version__ = "0.1.0"
