"""The root of the program's exception tree.

Every error that a user can cause derives from :class:`PalimpsestError`; its message is shown word for word, so it
names the cause, the options and the cure. Anything else that escapes is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class PalimpsestError(Exception):
    """Something the user asked for cannot be done; the message says why and what to do instead."""


class UnknownName(PalimpsestError, KeyError):
    """A name that is not in a registry: an editor, a strategy, a relation, a model family."""

    def __init__(self, kind: str, name: str, available: Iterable[str]) -> None:
        names = sorted(available)
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        self.message = f"Unknown {kind} {name!r}.{hint} Available: {', '.join(names) or 'none'}."
        super().__init__(self.message)

    def __str__(self) -> str:  # KeyError would show the repr
        return self.message


class InvalidInput(PalimpsestError, ValueError):
    """Input that cannot be used as it stands: empty, too long, malformed."""
