"""KnowEdit (2401.01286, section 4): edits with portability and locality in named groups.

Five of its six files are read. ConvSent is about the sentiment of a conversation, not about a fact with an answer, and
has no :class:`EditCase`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from evaluation.datasets.cases import EditCase, efficacy, probe, slotted, strings
from knowledge.edit import Edit
from knowledge.probes import Kind, Probe

_GROUPS: dict[str, tuple[Kind, bool]] = {
    "Reasoning": ("portability_onehop", True),
    "Subject_Aliasing": ("portability_alias", True),
    "Logical_Generalization": ("portability_inverse", True),
    "Relation_Specificity": ("locality_relation", False),
    "Forgetfulness": ("locality_forgetfulness", False),
}


def cases(raw: Any) -> Iterator[EditCase]:
    """Every record of the WikiData (recent, counterfact), ZsRE and WikiBio files, which differ in field names only."""
    for number, record in enumerate(raw):
        subject = record.get("subject") or record["concept"]
        prompt = record["prompt"] if "prompt" in record else record["text"]
        targets = list(strings(record["target_new"] if "target_new" in record else record["labels"]))
        true = next(strings(record.get("ground_truth")), None)
        asks = prompt.rstrip().endswith("?")
        edit = Edit(
            slotted(prompt, subject),
            subject,
            targets[0],
            true,
            question=prompt if asks else None,
            aliases=tuple(targets[1:]),
        )
        found: list[Probe | None] = [*efficacy(edit)]
        for wording in strings(record.get("rephrase") or record.get("rephrase_prompt")):
            found.append(probe("generality", wording, targets, must_change=True, true=true))
        for part in ("portability", "locality"):
            for group, entries in (record.get(part) or {}).items():
                kind, must_change = _GROUPS[group]
                for prompt_, answers in _entries(entries):
                    found.append(probe(kind, prompt_, answers, must_change=must_change, source=group))
        yield EditCase(str(number), (edit,), tuple(item for item in found if item is not None))


def _entries(entries: Any) -> Iterator[tuple[str, Any]]:
    """Prompts with their answers: a list of records, or one record of parallel lists in the first release."""
    for entry in [entries] if isinstance(entries, dict) else entries or ():
        prompts = entry["prompt"]
        if isinstance(prompts, str):
            yield prompts, entry["ground_truth"]
        else:
            yield from zip(prompts, entry["ground_truth"], strict=False)


def sanitation(raw: Any) -> Iterator[EditCase]:
    """Questions whose answer is to be forgotten (``K_F``) with one to be kept (``K_R``) beside each."""
    forget, retain = raw["K_F"], raw["K_R"]
    for number, record in enumerate(forget):
        question = record["question"]
        edit = Edit(
            "{}", question, record["target_new"], next(strings(record["ground_truth"]), None), question=question
        )
        kept = retain[number % len(retain)]
        beside = probe("locality_unrelated", kept["question"], kept["ground_truth"], must_change=False, source="K_R")
        yield EditCase(str(number), (edit,), tuple(item for item in (*efficacy(edit), beside) if item is not None))
