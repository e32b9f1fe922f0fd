"""Telling a question of several hops from a single one, without a language model."""

from __future__ import annotations

import re

from memory.gate import GateVerdict

# "the X of the Y of ...", "the X of the Y where ...", "the X of Z's Y": a noun phrase inside a noun phrase
_NESTED = re.compile(
    r"\b(?:of|in|from|by|for|to|on|at)\s+(?:the|its|his|her)\s+[\w\s/-]{2,60}?"
    r"\b(?:of|where|in which|that|who|which|whose|by)\b"
    r"|\b(?:of|in|by|from|for)\s+[^?]{2,60}?(?:'s|’s)\s+\w+",
    re.IGNORECASE,
)


def looks_like_chain(query: str, verdict: GateVerdict) -> bool:
    """Whether a question has several hops and the memory knows anything near it."""
    return not verdict.in_scope and bool(verdict.hits) and _NESTED.search(query) is not None
