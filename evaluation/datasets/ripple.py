"""RippleEdits (2307.12976, section 3): a new fact, and what should and should not change around it.

The file names the edited subject by its Wikidata id only; its name is read out of the edit's sentence, which follows a
fixed phrase for each relation. An edit whose sentence does not is left out.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

from evaluation.datasets.cases import EditCase, efficacy, probe
from knowledge.edit import Edit
from knowledge.probes import Kind

_TESTS: dict[str, tuple[Kind, bool]] = {
    "Logical_Generalization": ("portability_inverse", True),
    "Compositionality_I": ("portability_onehop", True),
    "Compositionality_II": ("portability_onehop", True),
    "Subject_Aliasing": ("portability_alias", True),
    "Relation_Specificity": ("locality_relation", False),
    "Relation_Specifity": ("locality_relation", False),  # so spelled in the first release
    "Forgetfulness": ("locality_forgetfulness", False),
    "Preservation": ("locality_forgetfulness", False),
}
_SENTENCE = re.compile(
    r"^(?:The (?:names? of the )?"
    r"(?:award|number of children|"
    r"(?:country of citizenship|place of \w+|date of \w+|field of work|head of \w+|[\w ]+?) of|"
    r"[\w ]+? (?:which|held by|in)) (?P<s>.+?)"
    r"(?: is associated with| is a member of| is part of| is the capital of| plays in| won| has)? (?:is|are)"
    r"|(?P<t>.+?) (?:follows|is followed by))$"
)


def cases(raw: Any) -> Iterator[EditCase]:
    """Every record of popular.json, random.json or recent.json whose subject can be read."""
    for number, record in enumerate(raw):
        edit = _edit(record["edit"])
        if edit is None:
            continue
        found = [*efficacy(edit)]
        for name, (kind, must_change) in _TESTS.items():
            for test in record.get(name, ()):
                for query in test["test_queries"]:
                    answers = [[item["value"], *item.get("aliases", ())] for item in query["answers"]]
                    item = probe(kind, query["prompt"], answers, must_change=must_change, source=name)
                    if item is not None:
                        found.append(item)
        yield EditCase(f"{record.get('example_type', 'case')}-{number}", (edit,), tuple(found))


def _shared(one: str, other: str) -> str:
    """The words that both begin with."""
    pairs = zip(one.split(" "), other.split(" "), strict=False)
    return " ".join(word for word, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def _edit(raw: dict[str, Any]) -> Edit | None:
    """The edit of a record: what both sentences share is the prompt, the rest is the object."""
    new = raw["prompt"].rstrip(". ")
    old = ((raw.get("original_fact") or {}).get("prompt") or "").rstrip(". ")
    verb = re.search(r"^.* (?:is followed by|follows|is|are) (?=\S)", new)
    head = _shared(new, old)
    if not head.endswith((" is", " are", " follows", " by")):
        head = verb[0].strip() if verb else ""
    found = _SENTENCE.match(head)
    if not found:
        return None
    subject, target = found["s"] or found["t"], new[len(head) :].strip()
    if not subject or not target:
        return None
    true = old[len(head) :].strip() if old.startswith(head) else None
    start = found.start("s") if found["s"] else found.start("t")
    prompt = f"{head[:start]}{{}}{head[start + len(subject) :]}"
    return Edit(prompt, subject, target, true or None, (raw.get("relation") or "").lower() or None)
