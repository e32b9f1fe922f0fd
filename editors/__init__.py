"""Weight editors: they compute an :class:`language_model.overlay.Overlay` that writes facts over a model, and keep a
ledger of what is active.

    from editors import available, get_editor, WeightLedger
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from editors.registry import DEFAULT, EditorInfo, available, get_editor

if TYPE_CHECKING:
    from editors.base import Editor, EditRefused
    from editors.ledger import Entry, WeightLedger
    from editors.statistics import MomentStore

_HOME = {
    "EditRefused": "base",
    "Editor": "base",
    "Entry": "ledger",
    "MomentStore": "statistics",
    "WeightLedger": "ledger",
}

__all__ = [
    "DEFAULT",
    "EditRefused",
    "Editor",
    "EditorInfo",
    "Entry",
    "MomentStore",
    "WeightLedger",
    "available",
    "get_editor",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
