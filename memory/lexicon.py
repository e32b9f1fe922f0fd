"""What the store knows about words: relations by any of their names, entities by any of their aliases.

A :class:`Lexicon` turns what a user gave (perhaps only a subject, a word and an object) into the complete wording of
a fact. The world's relations and aliases come from ``knowledge``; a word that is no known relation is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from knowledge.errors import InvalidInput
from knowledge.relations import Relation, fill
from knowledge.text import normalise_key, squeeze, without_stop
from knowledge.world import World, load_world
from memory.schema import FUNCTIONAL, MULTI

LONGEST = {"subject": 300, "relation": 200, "object": 500, "prompt": 500, "question": 500, "statement": 1000}


@dataclass(frozen=True, slots=True)
class Wording:
    """A fact, fully worded and keyed."""

    subject: str
    relation: str | None
    object: str
    subject_key: str
    relation_key: str
    object_key: str
    cardinality: str
    prompt: str
    question: str | None
    statement: str


class Lexicon:
    """Relations by id or label, aliases of entities; both may be empty."""

    def __init__(
        self, relations: Mapping[str, Relation], aliases: Mapping[str, str], entities: Iterable[str] = ()
    ) -> None:
        self.relations = dict(relations)
        self._by_name: dict[str, Relation] = {}
        for relation in relations.values():
            for name in (relation.label, relation.id.replace("_", " "), relation.id):
                self._by_name.setdefault(normalise_key(name), relation)
        canonical = {normalise_key(name) for name in (*aliases.values(), *entities)}
        self._aliases = {
            normalise_key(alias): normalise_key(name)
            for alias, name in aliases.items()
            if normalise_key(alias) not in canonical  # a name that is an entity of its own is never read as an alias
            and not _wider(alias, name)
        }
        self.entities = frozenset(canonical | set(self._aliases))  # keys of all names known
        self._names: dict[str, list[str]] = {}
        for alias, name in aliases.items():
            self._names.setdefault(normalise_key(name), []).append(alias)

    @classmethod
    @lru_cache(maxsize=1)
    def bundled(cls) -> Lexicon:
        return cls.of(load_world())

    @classmethod
    def of(cls, world: World) -> Lexicon:
        """The words of a world."""
        names = {name for names in world.entities.values() for name in names} | {fact.object for fact in world.facts}
        return cls(world.relations, world.aliases, names)

    def relation(self, name: str | None) -> Relation | None:
        return None if name is None else self._by_name.get(normalise_key(name))

    def entity_key(self, name: str) -> str:
        """The key of the entity of that name: aliases of the world lead to the entity itself."""
        key = normalise_key(name)
        return self._aliases.get(key, key)

    def alias_keys(self) -> Mapping[str, str]:
        """Alias key to entity key, for finding subjects in a question."""
        return self._aliases

    def names_of(self, key: str) -> tuple[str, ...]:
        """Aliases of the entity of that key."""
        return tuple(self._names.get(key, ()))

    def aliases_of(self, name: str) -> tuple[str, ...]:
        return tuple(self._names.get(self.entity_key(name), ()))

    def word(
        self,
        subject: str,
        relation: str | None,
        obj: str,
        *,
        prompt: str | None = None,
        question: str | None = None,
        statement: str | None = None,
        cardinality: str | None = None,
    ) -> Wording:
        """Completes a fact's wording.

        Raises:
            InvalidInput: a part is empty or too long, or nothing says how subject and object belong together.
        """
        subject, obj = squeeze(subject), without_stop(squeeze(obj)) or squeeze(obj)
        relation, prompt = squeeze(relation or "") or None, squeeze(prompt or "") or None
        question, statement = squeeze(question or "") or None, squeeze(statement or "") or None
        given = {"subject": subject, "object": obj, "relation": relation, "prompt": prompt, "question": question}
        for name, value in (given | {"statement": statement}).items():
            if name in ("subject", "object") and not normalise_key(value or ""):
                raise InvalidInput(f"The {name} of the fact is empty; give its name.")
            if value and len(value) > LONGEST[name]:
                raise InvalidInput(
                    f"The {name} has {len(value)} characters; at most {LONGEST[name]} are kept. Shorten it."
                )
        if cardinality not in (None, FUNCTIONAL, MULTI):
            raise InvalidInput(f"Unknown cardinality {cardinality!r}. Available: {FUNCTIONAL}, {MULTI}.")
        if prompt is not None and prompt.count("{}") != 1:
            raise InvalidInput(f'The prompt {prompt!r} must contain {{}} exactly once, e.g. "The capital of {{}} is".')
        known = self.relation(relation)
        if prompt is None:
            prompt = _default_prompt(known, relation, subject, obj, statement)
        if known is not None and statement is None and prompt == known.cloze[0]:
            statement = known.state(subject, obj.removesuffix("."))
        return Wording(
            subject=subject,
            relation=known.id if known else relation,
            object=obj,
            subject_key=self.entity_key(subject),
            relation_key=known.id if known else normalise_key(relation or prompt),
            object_key=self.entity_key(obj),
            cardinality=cardinality or (known.cardinality if known else FUNCTIONAL),
            prompt=prompt,
            question=question or _default_question(known, relation, subject),
            statement=statement or f"{fill(prompt, subject)} {obj.removesuffix('.')}.",
        )


def _wider(alias: str, name: str) -> bool:
    """Whether an alias is the wider common noun, as "rugby" is of "rugby union": one may hold and the other not.

    Such an alias helps to find a name in a question, but a fact about it is not a fact about the name.
    """
    return alias.islower() and name.islower() and set(alias.split()) < set(name.split())


def _default_prompt(known: Relation | None, relation: str | None, subject: str, obj: str, statement: str | None) -> str:
    if known is not None:
        return known.cloze[0]
    if relation is not None:
        return f"The {relation.replace('_', ' ')} of {{}} is"
    if statement is not None:  # "X stands in Y." gives "{} stands in"
        body = statement.rstrip(".")
        low, tail = body.casefold(), obj.removesuffix(".").casefold()
        at = low.find(subject.casefold())
        if at >= 0 and low.endswith(tail) and at + len(subject) <= len(body) - len(tail):
            return f"{body[:at]}{{}}{body[at + len(subject) : len(body) - len(tail)]}".strip()
    raise InvalidInput(
        "Nothing says how the subject and the object belong together. Give a relation (for example 'capital'), a "
        "prompt with {} for the subject ('The capital of {} is'), or the whole sentence with the object at its end."
    )


def _default_question(known: Relation | None, relation: str | None, subject: str) -> str | None:
    if known is not None:
        return known.ask(subject)
    return f"What is the {relation.replace('_', ' ')} of {subject}?" if relation else None
