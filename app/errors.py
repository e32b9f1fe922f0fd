"""Errors that only the program's own layer raises."""

from __future__ import annotations

from collections.abc import Sequence

from app.views import FactView
from knowledge.errors import PalimpsestError


class NothingFound(PalimpsestError):
    """What was asked for is not there; the command line ends with 1 instead of 2."""


class VerySimilar(PalimpsestError):
    """Memory may say so already in other words; the caller decides whether to keep both, replace, or cancel."""

    def __init__(self, message: str, similar: Sequence[FactView]) -> None:
        super().__init__(message)
        self.similar = tuple(similar)


class TooLarge(PalimpsestError):
    """Text or a file over one of the limits of the settings."""


class NotReady(PalimpsestError):
    """The model could not be loaded, so nothing can be asked of it."""
