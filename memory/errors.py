"""What can go wrong in the edit memory; every message is shown to the user word for word."""

from __future__ import annotations

from knowledge.errors import PalimpsestError


class StoreError(PalimpsestError):
    """The fact store could not do what was asked."""


class FactNotFound(StoreError):
    """No fact has this id (in the namespaces asked)."""

    def __init__(self, fact_id: int) -> None:
        super().__init__(f"There is no fact with the id {fact_id}. List the facts to see the ids in use.")


class NothingToUndo(StoreError):
    """There is no action left that could be undone or redone."""


class Conflict(StoreError):
    """The change contradicts another fact that is in force."""


class StorageFailure(StoreError):
    """The database could not write: disk full, read-only, locked by another program, or damaged."""


class EncoderUnavailable(PalimpsestError):
    """The sentence encoder could not be loaded."""


class IndexFileError(PalimpsestError):
    """A snapshot of the vector index cannot be used; the index is rebuilt from the stored vectors."""
