"""Relations: how a kind of fact is named and said, read from ``knowledge/world/relations/*.toml``.

A wording has one ``{}`` where the subject goes. Lists ending in ``_unseen`` are kept out of all training, so that
figures measured on them tell how far the model and the gate generalise.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from knowledge.errors import PalimpsestError


@dataclass(frozen=True, slots=True)
class Relation:
    """One kind of fact, with its wordings."""

    id: str
    label: str
    subject_type: str
    object_type: str
    cardinality: str  # "functional" or "multi"
    inverse: str
    noun: tuple[str, ...]  # noun phrases naming the object: "the capital of {}"
    noun_unseen: tuple[str, ...]
    cloze: tuple[str, ...]  # beginnings that the object completes: "The capital of {} is"
    cloze_unseen: tuple[str, ...]
    question: tuple[str, ...]
    question_unseen: tuple[str, ...]
    statement: tuple[str, ...]  # with {s} and {o}, object first
    inverse_question: tuple[str, ...]  # asks for the subject, given the object

    @property
    def functional(self) -> bool:
        return self.cardinality == "functional"

    def state(self, subject: str, obj: str) -> str:
        """The canonical statement of a fact of this relation."""
        return f"{fill(self.cloze[0], subject)} {obj}."

    def ask(self, subject: str) -> str:
        """The canonical question."""
        return fill(self.question[0], subject)


def fill(wording: str, subject: str) -> str:
    """Puts the subject into a wording; a wording's or subject's leading article is not doubled."""
    if subject[:4].lower() == "the " and "the {}" in wording.lower():
        subject = subject[4:]
    text = wording.replace("{}", subject)
    return text[0].upper() + text[1:]


_LISTS = ("noun", "cloze", "question")


def load_relations(folder: Path) -> dict[str, Relation]:
    """All relations of a folder of TOML files, by id, in file order.

    Raises:
        PalimpsestError: a file is malformed, an id stands twice, or a wording lacks its placeholder.
    """
    relations: dict[str, Relation] = {}
    for path in sorted(folder.glob("*.toml")):
        try:
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise PalimpsestError(f"{path.name} is not valid TOML: {error}") from error
        for identifier, table in tables.items():
            if identifier in relations:
                raise PalimpsestError(f"The relation {identifier!r} is defined twice; the second time in {path.name}.")
            relations[identifier] = _relation(identifier, table, path)
    return relations


def _relation(identifier: str, table: dict[str, Any], path: Path) -> Relation:
    def wordings(name: str, placeholders: tuple[str, ...] = ("{}",)) -> tuple[str, ...]:
        items = tuple(table.get(name, ()))
        for item in items:
            if any(item.count(mark) != 1 for mark in placeholders):
                raise PalimpsestError(
                    f"{path.name}, relation {identifier!r}, {name}: {item!r} must contain "
                    f"{' and '.join(placeholders)} once each."
                )
        return items

    seen = {name: wordings(name) for name in _LISTS}
    unseen = {f"{name}_unseen": wordings(f"{name}_unseen") for name in _LISTS}
    if not seen["cloze"] or not seen["question"]:
        raise PalimpsestError(f"{path.name}: the relation {identifier!r} needs at least one cloze and one question.")
    return Relation(
        id=identifier,
        label=table.get("label", identifier.replace("_", " ")),
        subject_type=table["subject_type"],
        object_type=table["object_type"],
        cardinality=table.get("cardinality", "functional"),
        inverse=table.get("inverse", ""),
        statement=wordings("statement", ("{s}", "{o}")),
        inverse_question=wordings("inverse_question"),
        **seen,
        **unseen,
    )
