"""What a recording has to say: each thing once, and never as an exception in the training."""

from __future__ import annotations

import logging

from colordim.errors import ColordimWarning, warn, with_page

__all__ = ["Notices"]

_logger = logging.getLogger("colordim")


class Notices:
    """Sentences for the user, each given once as a :class:`~colordim.errors.ColordimWarning`."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}

    @property
    def said(self) -> tuple[str, ...]:
        """Everything that was said so far."""
        return tuple(self._said.values())

    def say(self, key: str, sentence: str, page: str = "") -> None:
        """Say `sentence`, which `page` of the manual explains, unless something was said under `key` before."""
        if key in self._said:
            return
        self._said[key] = sentence
        try:
            warn(sentence, page)
        except ColordimWarning:  # warnings are errors here, but an error of ours must not stop a training
            _logger.warning(with_page(sentence, page))
