"""colordim in fastai: callbacks that record every batch of a fit.

>>> from colordim.fastai import ActivationsHistogram
>>> learn = vision_learner(dls, resnet18, cbs=ActivationsHistogram(), metrics=accuracy)  # doctest: +SKIP
>>> learn.fit_one_cycle(4)  # doctest: +SKIP
>>> learn.activations_histogram.plotActsHist(cols=20, figsize=(30, 15))  # doctest: +SKIP
"""

from colordim.errors import DependencyError

try:
    import fastai  # noqa: F401
except ModuleNotFoundError as error:
    raise DependencyError(
        'colordim.fastai needs fastai, which is not installed: pip install "colordim[fastai]".', page="fastai"
    ) from error

from colordim.integrations.fastai.callback import RecordingCallback
from colordim.integrations.fastai.histogram import ActivationsHistogram
from colordim.integrations.fastai.stats import ActivationStats

__all__ = ["ActivationStats", "ActivationsHistogram", "RecordingCallback"]
