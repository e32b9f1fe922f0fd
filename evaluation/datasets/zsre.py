"""zsRE as MEND evaluates on it (2110.11309, appendix): a question, a rephrasing, and an unrelated question of NQ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evaluation.datasets.cases import EditCase, efficacy, probe, slotted
from knowledge.edit import Edit


def cases(raw: Any) -> Iterator[EditCase]:
    """Every record of ``zsre_mend_eval.json``; ``alt`` is the new answer, ``answers`` the true ones."""
    for number, record in enumerate(raw):
        true = (record.get("answers") or [record.get("pred")])[0] or None
        edit = Edit(
            slotted(record["src"], record["subject"]), record["subject"], record["alt"], true, question=record["src"]
        )
        found = [*efficacy(edit), probe("generality", record["rephrase"], record["alt"], must_change=True, true=true)]
        loc = record["loc"].removeprefix("nq question:").strip()
        loc = loc if loc.endswith("?") else f"{loc}?"
        found.append(probe("locality_unrelated", loc, record["loc_ans"], must_change=False))
        yield EditCase(str(record.get("case_id", number)), (edit,), tuple(item for item in found if item is not None))
