"""The strategies by name. Each is imported when it is asked for, so listing them costs nothing.

A new strategy is a file in ``memory/strategies`` and a line here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from knowledge.errors import UnknownName
from memory.gate import Gate
from memory.models import ChatModel
from memory.strategies.base import Strategy


@dataclass(frozen=True, slots=True)
class Entry:
    """A strategy as it is listed."""

    name: str
    title: str
    paper: str
    where: str  # "module:Class"


_ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("ike", "IKE: facts in context", "2305.12740", "memory.strategies.ike:IKE"),
        Entry("mello", "MeLLo: multi-hop by subquestions", "2305.14795", "memory.strategies.mello:MeLLo"),
        Entry("serac", "SERAC: scope and counterfactual model", "2206.06520", "memory.strategies.serac:SERAC"),
        Entry("memprompt", "MemPrompt: corrections in words", "2201.06009", "memory.strategies.memprompt:MemPrompt"),
        Entry("graph_walk", "Graph walk: chains followed in memory", "", "memory.strategies.graph_walk:GraphWalk"),
    )
}


def available() -> tuple[Entry, ...]:
    """All strategies, in the order in which they are shown."""
    return tuple(_ENTRIES.values())


def get_strategy(name: str, lm: ChatModel, gate: Gate, **options: Any) -> Strategy:
    """Makes a strategy.

    Raises:
        UnknownName: no strategy has this name; the message lists them.
    """
    if name not in _ENTRIES:
        raise UnknownName("strategy", name, _ENTRIES)
    module, _, attribute = _ENTRIES[name].where.partition(":")
    strategy: Strategy = getattr(import_module(module), attribute)(lm, gate, **options)
    return strategy
