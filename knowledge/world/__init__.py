"""The bundled closed world: real, stable facts in ``tables/*.tsv`` and their wordings in ``relations/*.toml``.

A table's first column is an entity type and its other columns are relation ids, so one row holds all facts of one
entity. ``load_world()`` reads everything once:

    world = load_world()
    world.objects("France", "capital")        # ('Paris',)
    world.canonical("USA")                    # 'United States'
"""

from __future__ import annotations

import csv
import random
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from knowledge.edit import Edit, Fact
from knowledge.errors import PalimpsestError
from knowledge.relations import Relation, fill, load_relations
from knowledge.text import normalise_key

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class World:
    """Facts, entities, aliases and relations, with the indexes that everything else asks for."""

    relations: dict[str, Relation]
    facts: tuple[Fact, ...]
    entities: dict[str, tuple[str, ...]]  # entity type -> canonical names
    aliases: dict[str, str]  # alias -> canonical name

    @cached_property
    def _by_subject(self) -> dict[str, dict[str, tuple[str, ...]]]:
        table: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for fact in self.facts:
            table[fact.subject][fact.relation].append(fact.object)
        return {subject: {rel: tuple(objs) for rel, objs in rows.items()} for subject, rows in table.items()}

    @cached_property
    def _canonical(self) -> dict[str, str]:
        keys = {normalise_key(alias): name for alias, name in self.aliases.items()}
        names = {normalise_key(name): name for names in self.entities.values() for name in names}
        objects = {normalise_key(fact.object): fact.object for fact in self.facts}
        return objects | keys | names  # a canonical name wins over an alias

    @cached_property
    def _aliases_of(self) -> dict[str, tuple[str, ...]]:
        table: dict[str, list[str]] = defaultdict(list)
        for alias, name in self.aliases.items():
            table[name].append(alias)
        return {name: tuple(aliases) for name, aliases in table.items()}

    @cached_property
    def _types(self) -> dict[str, tuple[str, ...]]:
        table: dict[str, list[str]] = defaultdict(list)
        for kind, names in self.entities.items():
            for name in names:
                table[name].append(kind)
        return {name: tuple(kinds) for name, kinds in table.items()}

    @cached_property
    def by_relation(self) -> dict[str, tuple[Fact, ...]]:
        """The facts of each relation; of a subject's several objects only the first, canonical one."""
        table: dict[str, dict[str, Fact]] = defaultdict(dict)
        for fact in self.facts:
            table[fact.relation].setdefault(fact.subject, fact)
        return {relation: tuple(rows.values()) for relation, rows in table.items()}

    @cached_property
    def objects_of_relation(self) -> dict[str, tuple[str, ...]]:
        """The distinct objects of each relation: what a counterfactual of that relation can be drawn from."""
        return {rel: tuple(dict.fromkeys(f.object for f in facts)) for rel, facts in self.by_relation.items()}

    def canonical(self, name: str) -> str | None:
        """The world's own spelling of a name or alias, or None for a stranger."""
        return self._canonical.get(normalise_key(name))

    def aliases_of(self, name: str) -> tuple[str, ...]:
        return self._aliases_of.get(name, ())

    def types_of(self, name: str) -> tuple[str, ...]:
        return self._types.get(name, ())

    def objects(self, subject: str, relation: str) -> tuple[str, ...]:
        return self._by_subject.get(subject, {}).get(relation, ())

    def facts_of(self, subject: str) -> tuple[Fact, ...]:
        """One fact a relation of this subject."""
        return tuple(Fact(subject, rel, objs[0]) for rel, objs in self._by_subject.get(subject, {}).items())

    def edit(self, subject: str, relation: str, target_new: str) -> Edit:
        """A counterfactual edit of a fact of the world, in the relation's canonical wording."""
        rel = self.relations[relation]
        true = self.objects(subject, relation)
        return Edit(
            prompt=rel.cloze[0],
            subject=subject,
            target_new=target_new,
            target_true=true[0] if true else None,
            relation=relation,
            question=fill(rel.question[0], subject),
            aliases=self.aliases_of(target_new),
        )

    def chains(self, hops: int) -> Iterator[tuple[Fact, ...]]:
        """Every chain of ``hops`` facts in which each object is the next subject, without returning to an entity."""

        def grow(chain: tuple[Fact, ...]) -> Iterator[tuple[Fact, ...]]:
            if len(chain) == hops:
                yield chain
                return
            seen = {fact.subject for fact in chain} | {chain[-1].object}
            for fact in self.facts_of(chain[-1].object):
                if fact.object not in seen:
                    yield from grow((*chain, fact))

        for relation in self.relations:
            for fact in self.by_relation.get(relation, ()):
                yield from grow((fact,))

    def sample_chains(self, hops: int, count: int, rng: random.Random) -> list[tuple[Fact, ...]]:
        """``count`` random chains, each first relation equally likely (a uniform draw would be mostly geography)."""
        starts = [facts for facts in self.by_relation.values() if facts]
        chains: list[tuple[Fact, ...]] = []
        while len(chains) < count:
            chain: tuple[Fact, ...] = (rng.choice(rng.choice(starts)),)
            while len(chain) < hops:
                seen = {fact.subject for fact in chain}
                onward = [f for f in self.facts_of(chain[-1].object) if f.object not in seen]
                if not onward:
                    break
                chain = (*chain, rng.choice(onward))
            if len(chain) == hops:
                chains.append(chain)
        return chains


@lru_cache(maxsize=1)
def load_world(folder: Path = FOLDER) -> World:
    """Reads and cross-checks the tables.

    Raises:
        PalimpsestError: a row has the wrong number of columns, a column is no relation, or an alias names two entities.
    """
    relations = load_relations(folder / "relations")
    facts: dict[Fact, None] = {}
    entities: dict[str, dict[str, None]] = defaultdict(dict)
    aliases: dict[str, str] = {}
    for path in sorted((folder / "tables").glob("*.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
        kind, *columns = rows[0]
        unknown = [name for name in columns if name != "aliases" and name not in relations]
        if unknown:
            raise PalimpsestError(f"{path.name}: no relation is called {', '.join(unknown)}.")
        for number, row in enumerate(rows[1:], start=2):
            if len(row) != len(columns) + 1:
                raise PalimpsestError(f"{path.name}, line {number}: {len(row)} columns instead of {len(columns) + 1}.")
            subject = row[0]
            entities[kind][subject] = None
            for column, cell in zip(columns, row[1:], strict=True):
                if column == "aliases":
                    for alias in filter(None, cell.split("|")):
                        if aliases.setdefault(alias, subject) != subject:
                            raise PalimpsestError(
                                f"{path.name}, line {number}: {alias!r} also names {aliases[alias]!r}."
                            )
                else:
                    for obj in filter(None, cell.split(";")):
                        facts[Fact(subject, column, obj)] = None
    return World(relations, tuple(facts), {kind: tuple(names) for kind, names in entities.items()}, aliases)


@lru_cache(maxsize=1)
def roundabout() -> dict[str, dict[str, tuple[str, ...]]]:
    """Further wordings of the relations, plain and roundabout: by relation, then ``question``, ``cloze``, ``noun`` and
    ``asked`` (questions and clozes).

    They train readers of questions, and all but ``asked`` train models; facts are never worded like that. None is held
    out of its relation.
    """
    tables = tomllib.loads((FOLDER / "roundabout.toml").read_text(encoding="utf-8"))
    return {name: {kind: tuple(texts) for kind, texts in table.items()} for name, table in tables.items()}
