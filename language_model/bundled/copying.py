"""Copying, bare: lists of names said twice, and look-ups in a list.

Every token of the second list follows from the first, so that the heads which copy ("induction heads", 2209.11895)
form within the first million tokens. In-context editing is built on them; without this exercise they came so late on
2 cores that facts in context were ignored for most of the training.
"""

from __future__ import annotations

from language_model.bundled import names
from language_model.bundled.draw import Draw, Example

_KINDS = ("person", "city", "company", "book", "product", "word", "quantity")


def repeat(draw: Draw) -> Example:
    """A list of names twice over; the second time counts."""
    items = _names(draw, draw.rng.randint(3, 8))
    gap = draw.choice((", ", "; ", ". ", " and "))
    text = gap.join(items)
    return Example(f"{text}.", text=f" {text}.", skill="repeat")


def look_up(draw: Draw) -> Example:
    """Pairs of names, then the first of each pair again in another order; the second of it counts."""
    count = draw.rng.randint(2, 5)
    items = _names(draw, 2 * count)
    pairs = list(zip(items[:count], items[count:], strict=True))
    told = "; ".join(f"{left}: {right}" for left, right in pairs)
    draw.rng.shuffle(pairs)
    asked = "; ".join(f"{left}: {right}" for left, right in pairs)
    return Example(f"{asked}.", text=f" {told}.", skill="look-up")


def _names(draw: Draw, count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        fact = draw.fact()
        name = (
            names.invent(draw.choice(_KINDS), draw.rng)
            if draw.chance(0.7)
            else draw.choice((fact.subject, fact.object))
        )
        found[name] = None
    return list(found)
