"""The record that every data set is read into, and what the readers share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from knowledge.edit import Edit
from knowledge.probes import Kind, Probe
from knowledge.text import normalise_key


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a chain, with the answer after the edits."""

    question: str
    cloze: str
    answer: str
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MultiHop:
    """A question over several facts, some of them edited, in several phrasings."""

    questions: tuple[str, ...]
    before: str
    before_aliases: tuple[str, ...]
    after: str
    after_aliases: tuple[str, ...]
    hops: tuple[Hop, ...]  # after the edits, in order


@dataclass(frozen=True, slots=True)
class EditCase:
    """Edits that belong together, and the questions that tell whether they worked."""

    id: str
    edits: tuple[Edit, ...]
    probes: tuple[Probe, ...] = ()
    multihop: MultiHop | None = None
    openings: tuple[str, ...] = ()  # beginnings to be gone on with freely, for fluency


def slotted(prompt: str, subject: str) -> str:
    """The prompt with {} where the subject stands; before it, where it does not stand there at all."""
    prompt = prompt.replace("{}", subject) if "{}" in prompt else prompt
    text = prompt.replace("{", "(").replace("}", ")")
    found = re.search(rf"(?<!\w){re.escape(subject)}(?!\w)", text) or re.search(re.escape(subject), text, re.IGNORECASE)
    if found is None:
        return f"{{}}: {text}"
    return f"{text[: found.start()]}{{}}{text[found.end() :]}"


def strings(value: Any) -> Iterator[str]:
    """Every text in nested lists: the answers of KnowEdit are lists of lists of names."""
    if isinstance(value, str):
        if value.strip():
            yield value.strip()
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from strings(item)
    elif isinstance(value, (int, float)):
        yield str(value)


def probe(
    kind: Kind, prompt: str, answers: Any, *, must_change: bool, source: str = "", true: str | None = None
) -> Probe | None:
    """A probe of a data set's prompt: a question in the chat form, a beginning as completion; None without answer."""
    names = list(dict.fromkeys(strings(answers)))
    if not prompt.strip() or not names:
        return None
    asks = prompt.rstrip().endswith("?")
    form = "chat" if asks else "completion"
    return Probe(kind, prompt, None if asks else prompt, names[0], tuple(names[1:]), must_change, source, form, true)  # type: ignore[arg-type]


def efficacy(edit: Edit) -> tuple[Probe, ...]:
    """The edit's own prompt, and its question where it has one."""
    own = [probe("efficacy", edit.text, [edit.target_new, *edit.aliases], must_change=True, true=edit.target_true)]
    if edit.question and normalise_key(edit.question) != normalise_key(edit.text):
        answers = [edit.target_new, *edit.aliases]
        own.append(probe("efficacy", edit.question, answers, must_change=True, true=edit.target_true))
    return tuple(item for item in own if item is not None)
