"""MQuAKE (2305.14795, section 3): edits and a question of 2 to 4 hops over them, in three phrasings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from evaluation.datasets.cases import EditCase, Hop, MultiHop, efficacy
from evaluation.datasets.counterfact import rewrite


def cases(raw: Any) -> Iterator[EditCase]:
    """Every record of MQuAKE-CF, MQuAKE-CF-3k(-v2), MQuAKE-T and the hard subset, which have one format."""
    for record in raw:
        hops = tuple(
            Hop(hop["question"], hop["cloze"], hop["answer"], tuple(hop.get("answer_alias", ())))
            for hop in record["new_single_hops"]
        )
        names = {hop.answer: hop.aliases for hop in hops}
        edits = tuple(rewrite(request) for request in record["requested_rewrite"])
        edits = tuple(replace(edit, aliases=names.get(edit.target_new, ())) for edit in edits)
        chain = MultiHop(
            questions=tuple(record["questions"]),
            before=record["answer"],
            before_aliases=tuple(record.get("answer_alias", ())),
            after=record["new_answer"],
            after_aliases=tuple(record.get("new_answer_alias", ())),
            hops=hops,
        )
        probes = tuple(item for edit in edits for item in efficacy(edit))
        yield EditCase(str(record["case_id"]), edits, probes, chain)
