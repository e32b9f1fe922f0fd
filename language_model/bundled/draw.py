"""Draws from the world: the random choices that all skills of the corpus share.

A :class:`Draw` knows which wordings it may use: the training ones, or, for the report, only those never trained on.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

from knowledge.edit import Fact
from knowledge.relations import Relation, fill
from knowledge.world import World, roundabout
from language_model.bundled import names
from language_model.prompts import Message

T = TypeVar("T")
WORDINGS = Path(__file__).parent / "wordings"


@cache
def wordings(name: str) -> dict[str, Any]:
    """One of the TOML files beside this module."""
    return tomllib.loads((WORDINGS / f"{name}.toml").read_text(encoding="utf-8"))


def fill_noun(noun: str, phrase: str) -> str:
    """A noun phrase around another; unlike a sentence it does not start with a capital."""
    if phrase[:4].lower() == "the " and "the {}" in noun:
        phrase = phrase[4:]
    return noun.replace("{}", phrase)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _opened(opening: str, text: str, subject: str) -> str:
    """A statement behind a few words of introduction; only a name keeps its capital."""
    return opening + (text if text.startswith(subject) else text[0].lower() + text[1:])


@dataclass(frozen=True, slots=True)
class Stated:
    """A fact as a line of a context, its relation, and whether it answers the question that stands before it.

    From character ``tells_from`` of ``text`` on the reader has seen enough to know.
    """

    text: str
    tells_from: int
    applies: bool
    relation: str


@dataclass(frozen=True, slots=True)
class Example:
    """What the model reads (``messages``, or ``text`` to complete) and what it shall write.

    ``whole`` asks for the loss on every token instead of the answer's alone, ``every`` for the loss on all turns of the
    assistant in ``messages`` too.
    """

    answer: str
    messages: tuple[Message, ...] = ()
    text: str = ""
    whole: bool = False
    every: bool = False
    skill: str = ""
    also: tuple[str, ...] = ()  # other answers that count as right
    facts: tuple[Stated, ...] = ()  # the last block of facts, for training to tell those that apply
    asked: tuple[tuple[str, str], ...] = ()  # lines of the first prompt (questions, clozes) and their relations

    @property
    def read(self) -> list[Message] | str:
        """What it gives to read: the chat up to the answer, or the text with it."""
        return list(self.messages) if self.messages else f"{self.text} {self.answer}"


@dataclass(frozen=True, slots=True)
class Everyday:
    """A relation that exists only in context, never in the weights."""

    id: str
    subject_type: str
    object_type: str
    cloze: tuple[str, ...]
    question: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Claim:
    """A fact as it may stand in a context: real, counterfactual or invented."""

    subject: str
    relation: Relation | Everyday
    object: str


@dataclass
class Draw:
    """Random facts, names and wordings of one world.

    ``unseen`` switches to the wordings kept out of training; ``strangers`` replaces the generator of invented names
    by a fixed list of names kept out of training.
    """

    world: World
    rng: random.Random
    unseen: bool = False
    strangers: Sequence[str] = ()

    @cached_property
    def everyday(self) -> tuple[Everyday, ...]:
        return tuple(
            Everyday(name, t["subject_type"], t["object_type"], tuple(t["cloze"]), tuple(t["question"]))
            for name, t in wordings("everyday").items()
        )

    @cached_property
    def relations(self) -> tuple[Relation, ...]:
        return tuple(r for r in self.world.relations.values() if self.world.by_relation.get(r.id))

    @cached_property
    def relations_by_subject_type(self) -> dict[str, tuple[Relation, ...]]:
        kinds = {r.subject_type for r in self.relations}
        return {kind: tuple(r for r in self.relations if r.subject_type == kind) for kind in kinds}

    @cached_property
    def _facts(self) -> tuple[Fact, ...]:
        return tuple(fact for facts in self.world.by_relation.values() for fact in facts)

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def choice(self, items: Sequence[T]) -> T:
        return items[self.rng.randrange(len(items))]

    def fact(self) -> Fact:
        """A fact of the world, every fact equally likely."""
        return self.choice(self._facts)

    def relation(self, identifier: str) -> Relation:
        return self.world.relations[identifier]

    def stranger(self, kind: str) -> str:
        """A name that is not in the world."""
        while True:
            name = self.choice(self.strangers) if self.strangers else names.invent(kind, self.rng)
            if self.world.canonical(name) is None:
                return name

    def surface(self, name: str, alias_rate: float = 0.15) -> str:
        """The name, or sometimes one of its aliases."""
        aliases = self.world.aliases_of(name)
        return self.choice(aliases) if aliases and self.chance(alias_rate) else name

    # ------------------------------------------------------------------------------------------------- wordings

    def pick(self, relation: Any, kind: str) -> str:
        """A wording of a relation: kind is ``cloze``, ``question`` or ``noun``."""
        items = getattr(relation, f"{kind}_unseen", ()) if self.unseen else ()
        if not self.unseen and isinstance(relation, Relation) and self.chance(0.6):
            items = roundabout().get(relation.id, {}).get(kind, ())
        return self.choice(items or getattr(relation, kind))

    def ask(self, relation: Any, subject: str) -> str:
        """A question, typed as people type: sometimes without its mark or in lower case."""
        text = fill(self.pick(relation, "question"), subject)
        if not self.unseen:
            text = self._reworded(text, relation, subject)
        draw = self.rng.random()
        if draw < 0.08:
            text = text.rstrip("?.")
        elif draw < 0.12:
            text = text.lower()
        return text

    def _reworded(self, text: str, relation: Any, subject: str) -> str:
        """Now and then another wording: a frame around the relation's noun phrase, words left out, words around it.

        A model of this size knows no English but its corpus; what it has not met in many shapes it takes for
        a question about something else.
        """
        draw = self.rng.random()
        frames = wordings("frames")
        if draw < 0.22 and isinstance(relation, Relation):
            frame = self.choice(frames["question"])
            phrase = fill_noun(self.pick(relation, "noun"), subject)
            return frame.replace("{N}", _capital(phrase)).replace("{n}", phrase)
        if draw < 0.34 and isinstance(relation, Relation):
            return self._thinned(text, subject, 0.3)
        if draw < 0.42:
            before, after = self.choice(frames["around"])
            return f"{before}{text}{after}"
        return text

    def state(self, relation: Any, subject: str, obj: str) -> str:
        """A statement of a fact in any wording, the object last or, for relations of the world, also first."""
        if self.unseen:
            return f"{self.begin(relation, subject)} {obj}."
        draw = self.rng.random()
        if isinstance(relation, Relation):
            if relation.statement and draw < 0.18:
                text = self.choice(relation.statement).replace("{s}", subject).replace("{o}", obj)
                return text if text.startswith(obj) else _capital(text)  # the object is copied letter by letter
            if draw < 0.3:
                frame = self.choice(wordings("frames")["statement"])
                phrase = fill_noun(self.pick(relation, "noun"), subject)
                filled = frame.replace("{N}", _capital(phrase)).replace("{n}", phrase)
                return filled.replace("{o}", obj)
        text = fill(self.pick(relation, "cloze"), subject)
        if self.chance(0.12):
            text = self._thinned(text, subject, 0.25)
        if self.chance(0.12):
            text = _opened(self.choice(wordings("frames")["opening"]), text, subject)
        end = self.choice(wordings("frames")["closing"]) if self.chance(0.1) else "{o}."
        return f"{text} {end.replace('{o}', obj)}"

    def begin(self, relation: Any, subject: str) -> str:
        """The beginning of a statement, which the bare object completes."""
        if not self.unseen and isinstance(relation, Relation) and self.chance(0.15):
            phrase = fill_noun(self.pick(relation, "noun"), subject)
            frame = self.choice(wordings("frames")["completion"])
            return frame.replace("{N}", _capital(phrase)).replace("{n}", phrase)
        text = fill(self.pick(relation, "cloze"), subject)
        if not self.unseen and self.chance(0.1):
            text = _opened(self.choice(wordings("frames")["opening"]), text, subject)
        return text

    def _thinned(self, text: str, subject: str, rate: float) -> str:
        """Some words around the subject left out: what is left must do."""
        before, found, after = text.partition(subject)
        if not found:
            return text
        kept = [" ".join(w for w in part.split() if not self.chance(rate)) for part in (before, after)]
        return " ".join(part for part in (kept[0], subject, kept[1]) if part)

    # --------------------------------------------------------------------------------------------------- claims

    def stated(self, claim: Claim, applies: bool, alias_rate: float = 0.0) -> Stated:
        """A claim as a line of a context."""
        subject = self.surface(claim.subject, alias_rate)
        text = self.state(claim.relation, subject, claim.object)
        at = text.rfind(claim.object)
        tells_from = at if at > text.find(subject) >= 0 else len(text) - 1
        return Stated(text, tells_from, applies, claim.relation.id)

    def new_object(self, relation: Relation | Everyday, avoid: Sequence[str] = (), stranger_rate: float = 0.45) -> str:
        """An object for a counterfactual: from the relation's own range, from anywhere in the world, or invented."""
        while True:
            draw = self.rng.random()
            if isinstance(relation, Everyday) or draw < stranger_rate:
                obj = self.stranger(relation.object_type)
            elif draw < stranger_rate + 0.1:
                obj = self.fact().object
            else:
                obj = self.choice(self.world.objects_of_relation[relation.id])
            if obj not in avoid:
                return obj

    def everyday_claim(self, subject: str | None = None) -> Claim:
        relation = self.choice(self.everyday)
        if subject is None:
            people = self.world.entities.get("person", ())
            known = relation.subject_type == "person" and people and self.chance(0.3)
            subject = self.choice(people) if known else self.stranger(relation.subject_type)
        return Claim(subject, relation, self.new_object(relation))

    def claim(self, stranger_rate: float = 0.3, everyday_rate: float = 0.25) -> Claim:
        """A fact to be believed for the moment: of the world's relations or of daily life."""
        if self.chance(everyday_rate):
            return self.everyday_claim()
        fact = self.fact()
        relation = self.relation(fact.relation)
        if self.chance(stranger_rate):
            return Claim(self.stranger(relation.subject_type), relation, self.new_object(relation))
        return Claim(fact.subject, relation, self.new_object(relation, avoid=(fact.object,)))

    def near_miss(self, subject: str, relation: Relation | Everyday) -> Claim:
        """A claim that looks like one about (subject, relation) and is not."""
        draw = self.rng.random()
        if draw < 0.36:  # same relation, another subject
            if isinstance(relation, Everyday):
                other = self.stranger(relation.subject_type)
            else:
                others = self.world.by_relation[relation.id]
                other = self.choice(others).subject if self.chance(0.6) else self.stranger(relation.subject_type)
            if other != subject:
                return Claim(other, relation, self.new_object(relation))
        if draw < 0.8:  # same subject, another relation
            kind = relation.subject_type
            others_of_kind = [r for r in self.relations_by_subject_type.get(kind, ()) if r is not relation]
            if others_of_kind and self.chance(0.65):
                other_relation: Relation | Everyday = self.choice(others_of_kind)
            else:
                fitting = [r for r in self.everyday if r is not relation]
                other_relation = self.choice(fitting)
            return Claim(subject, other_relation, self.new_object(other_relation))
        if draw < 0.9:  # a name that looks like it
            return Claim(names.near(subject, self.rng), relation, self.new_object(relation))
        return self.mention(subject, relation)

    def mention(self, name: str, relation: Relation | Everyday) -> Claim:
        """A claim in which ``name`` is the object, so that it is mentioned but not spoken of."""
        fitting = [r for r in self.relations if r.object_type == relation.subject_type]
        chosen: Relation | Everyday = self.choice(fitting) if fitting else self.choice(self.everyday)
        return Claim(self.stranger(chosen.subject_type), chosen, name)
