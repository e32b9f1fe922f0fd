"""How relations are said: the bundled world's and, beyond it, those of ``data/vocabulary.toml``.

The scope head and the question parser learn from these wordings which ones mean the same relation. A
:class:`Sense` is one meaning; senses that name the same relation in both sources are joined.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from knowledge.relations import Relation

_FILE = Path(__file__).parent / "data" / "vocabulary.toml"
_KINDS = {  # subject types of the world to the kinds of the vocabulary
    "person": ("person",),
    "country": ("country", "place"),
    "city": ("place",),
    "state": ("place",),
    "island": ("place",),
    "mountain": ("place", "building"),
    "landmark": ("building", "place"),
    "river": ("water", "place"),
    "company": ("organisation",),
    "airline": ("organisation",),
    "university": ("organisation", "building"),
    "club": ("team", "organisation"),
    "band": ("team", "organisation"),
    "product": ("product", "thing"),
    "programming language": ("product", "thing"),
}
_WORKS = {"film", "book", "song", "artwork", "composition", "character"}


@dataclass(frozen=True, slots=True)
class Sense:
    """One relation of one source, with its wordings; ``group`` is shared by senses that mean the same."""

    id: str
    group: str
    kinds: frozenset[str]
    cloze: tuple[str, ...]
    question: tuple[str, ...]
    noun: tuple[str, ...]
    unseen: tuple[str, ...] = ()  # clozes and questions kept out of training
    subject_type: str = ""  # in the world
    more: tuple[str, ...] = ()  # further ways to ask, in no fact's own words


@dataclass(frozen=True)
class Vocabulary:
    """All senses, and which of them are too near to be told apart."""

    senses: tuple[Sense, ...]
    near: frozenset[frozenset[str]]  # pairs of groups

    def extended(self, wordings: Mapping[str, Mapping[str, Sequence[str]]]) -> Vocabulary:
        """With more ways to ask for some of the senses, by id and then by "cloze", "question", "noun" or "asked".

        They are for questions only: a stored fact is not worded like that. Wordings that are held out of any sense stay
        out: another relation may have one by chance.
        """
        held_out = {text for sense in self.senses for text in sense.unseen}

        def more(sense: Sense) -> Sense:
            table = wordings.get(sense.id, {})
            nouns = (f"What is {noun}?" for noun in table.get("noun", ()))
            asked = (text for kind in ("question", "cloze", "asked") for text in table.get(kind, ()))
            texts = dict.fromkeys((*sense.more, *asked, *nouns))
            known = {*sense.cloze, *sense.question, *held_out}
            return replace(sense, more=tuple(text for text in texts if text not in known))

        return replace(self, senses=tuple(map(more, self.senses)))

    def rivals(self, first: Sense, second: Sense) -> bool:
        """Whether the two are clearly different relations that one subject may have."""
        apart = first.group != second.group and frozenset((first.group, second.group)) not in self.near
        return apart and bool(first.kinds & second.kinds)

    def apart(self, first: str, second: str) -> bool:
        """Whether two groups are clearly different relations."""
        return first != second and frozenset((first, second)) not in self.near


@lru_cache(maxsize=1)
def bundled() -> Vocabulary:
    from knowledge.world import load_world

    return build(load_world().relations)


def build(relations: Mapping[str, Relation], path: Path = _FILE) -> Vocabulary:
    """Joins the relations of a world with those of the vocabulary file."""
    tables: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    links, more, nouns = tables.pop("_links"), tables.pop("_more", {}), tables.pop("_nouns", {})
    group = _groups(links["same"])
    senses = [
        Sense(
            id=relation.id,
            group=group.get(relation.id, relation.id),
            kinds=_kinds(relation.subject_type),
            cloze=(*relation.cloze, *(text for text in more.get(relation.id, ()) if text[-1] not in "?.")),
            question=(*relation.question, *(text for text in more.get(relation.id, ()) if text[-1] in "?.")),
            noun=(*relation.noun, *nouns.get(relation.id, ())),
            unseen=(*relation.cloze_unseen, *relation.question_unseen),
            subject_type=relation.subject_type,
        )
        for relation in relations.values()
    ]
    senses += [
        Sense(
            id=f"vocabulary.{name}",
            group=group.get(name, name if name not in relations else f"vocabulary.{name}"),
            kinds=frozenset({table["kind"]}),
            cloze=tuple(table["cloze"]),
            question=tuple(table["question"]),
            noun=(*table["noun"], *nouns.get(name, ())),
        )
        for name, table in tables.items()
    ]
    near = {
        frozenset((group.get(a, a), group.get(b, b)))
        for names in links["near"]
        for a in names
        for b in names
        if group.get(a, a) != group.get(b, b)
    }
    return Vocabulary(tuple(senses), frozenset(near))


def _groups(same: Iterable[Iterable[str]]) -> dict[str, str]:
    return {name: names[-1] for names in map(list, same) for name in names}


def _kinds(subject_type: str) -> frozenset[str]:
    if subject_type in _WORKS:
        return frozenset({"work"})
    return frozenset(_KINDS.get(subject_type, ("thing",)))
