"""Probes of a comparison as lines of text that a person can change: ``kind | question | expected answer``.

    # The Eiffel Tower is located in Rome.
    the fact itself | Where is the Eiffel Tower? | Rome
    other subjects | Where is Big Ben? | London

A line with # begins the probes of the next fact. A kind may be left out ("in other words" is meant), and so may the
answer of what must not change (what the unedited model says is meant).
"""

from __future__ import annotations

from collections.abc import Sequence

from app.ui.compare_html import KIND_NAMES, kind_name
from app.views import ProbeLine
from knowledge.errors import InvalidInput

_KINDS = {name: kind for kind, name in KIND_NAMES.items()} | {kind: kind for kind in KIND_NAMES}
_USUAL = "generality"


def as_text(lines: Sequence[ProbeLine], facts: Sequence[str]) -> str:
    """The probes as text, a heading for each of the facts."""
    found = []
    for number, fact in enumerate(facts):
        found.append(f"# {_one_line(fact)}")
        for line in lines:
            if line.fact == number:
                found.append(
                    " | ".join(map(_one_line, (kind_name(line.kind), line.prompt, line.expected))).rstrip(" |")
                )
    return "\n".join(found)


def from_text(text: str) -> list[ProbeLine]:
    """The text's probes.

    Raises:
        InvalidInput: a line has no question, too many parts or an unknown kind; the message names the line.
    """
    found: list[ProbeLine] = []
    fact = -1
    for number, row in enumerate(text.splitlines(), start=1):
        row = row.strip()
        if row.startswith("#"):
            fact += 1
        elif row:
            kind, question, expected = _parts(row, number)
            found.append(ProbeLine(max(0, fact), kind, question, expected))
    return found


def _parts(row: str, number: int) -> tuple[str, str, str]:
    parts = [part.strip() for part in row.split("|")]
    if len(parts) == 1:
        raise InvalidInput(f'Line {number} of the probes: write "kind | question | answer", as the other lines do.')
    if parts[0].lower() not in _KINDS and len(parts) == 2:  # "question | answer"
        parts = [_USUAL, *parts]
    kind = _KINDS.get(parts[0].lower() or _USUAL)
    if kind is None:
        raise InvalidInput(
            f"Line {number} of the probes: unknown kind {parts[0]!r}. Kinds: {', '.join(KIND_NAMES.values())}."
        )
    if len(parts) > 3 or not parts[1]:
        raise InvalidInput(f'Line {number} of the probes: write "kind | question | answer", as the other lines do.')
    return kind, parts[1], parts[2] if len(parts) == 3 else ""


def _one_line(text: str) -> str:
    return " ".join(text.replace("|", "/").split())
