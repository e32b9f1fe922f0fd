"""CounterFact (2202.05262, section 3.4) and its multi-edit variant: one rewrite, paraphrases, neighbourhood prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evaluation.datasets.cases import EditCase, efficacy, probe
from knowledge.edit import Edit


def cases(raw: Any) -> Iterator[EditCase]:
    """Every record of the file. The attribute prompts (other subjects that have the new object) are not probed."""
    for record in raw:
        yield case(record)


def rewrite(request: dict[str, Any]) -> Edit:
    """A ``requested_rewrite`` of CounterFact or MQuAKE."""
    return Edit(
        prompt=request["prompt"],
        subject=request["subject"],
        target_new=request["target_new"]["str"],
        target_true=request["target_true"]["str"],
        relation=request.get("relation_id"),
        question=request.get("question"),
    )


def case(record: dict[str, Any]) -> EditCase:
    edit = rewrite(record["requested_rewrite"])
    new, true = edit.target_new, edit.target_true
    probes = list(efficacy(edit))
    for prompt in record.get("paraphrase_prompts", ()):
        probes.append(probe("generality", prompt, new, must_change=True, true=true))  # type: ignore[arg-type]
    for prompt in record.get("neighborhood_prompts", ()):
        probes.append(probe("locality_neighbour", prompt, true, must_change=False, true=true))  # type: ignore[arg-type]
    kept = tuple(item for item in probes if item is not None)
    return EditCase(str(record["case_id"]), (edit,), kept, openings=tuple(record.get("generation_prompts", ())))
