"""known_1000 (2202.05262, section 2): plain facts that GPT-2 XL knows, for tracing. The edit asks for what is true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evaluation.datasets.cases import EditCase, efficacy, slotted
from knowledge.edit import Edit


def cases(raw: Any) -> Iterator[EditCase]:
    """Every record; ``prompt`` counts, since the ``template`` sometimes lacks its last words."""
    for record in raw:
        subject, answer = record["subject"], record["attribute"]
        edit = Edit(slotted(record["prompt"], subject), subject, answer, answer, record.get("relation_id"))
        yield EditCase(str(record["known_id"]), (edit,), efficacy(edit))
