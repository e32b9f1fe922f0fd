"""The bundled world is what it claims to be: large, connected, consistent, and worded for training and for testing."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import pytest

from knowledge.text import normalise_key
from knowledge.world import World, load_world


@pytest.fixture(scope="module")
def world() -> World:
    return load_world()


def test_size(world: World) -> None:
    assert len(world.facts) >= 4000
    assert len(world.relations) >= 24
    assert len(world.aliases) >= 500
    assert all(world.by_relation.get(relation) for relation in world.relations), "every relation has facts"


@pytest.mark.parametrize("hops", [2, 3, 4])
def test_chains_exist_in_thousands(world: World, hops: int) -> None:
    assert len(list(islice(world.chains(hops), 2000))) == 2000


def test_wordings(world: World) -> None:
    for relation in world.relations.values():
        assert len(relation.cloze) >= 5, relation.id
        assert len(relation.question) >= 4, relation.id
        assert len(relation.cloze_unseen) >= 2, relation.id
        assert len(relation.question_unseen) >= 2, relation.id
        assert relation.cardinality in ("functional", "multi"), relation.id
        assert relation.inverse, relation.id
        for kind in ("cloze", "question", "noun"):
            seen, unseen = getattr(relation, kind), getattr(relation, f"{kind}_unseen")
            assert not {w.lower() for w in seen} & {w.lower() for w in unseen}, (relation.id, kind)


def test_objects_have_the_type_their_relation_says(world: World) -> None:
    """An object of an entity type is an entity, so that chains do not end by accident."""
    wrong = []
    for fact in world.facts:
        kind = world.relations[fact.relation].object_type
        if kind in world.entities and kind not in world.types_of(fact.object):
            wrong.append((fact, world.types_of(fact.object)))
    assert len(wrong) <= 0.002 * len(world.facts), wrong[:20]


def test_functional_relations_have_one_object(world: World) -> None:
    counts = Counter((fact.subject, fact.relation) for fact in world.facts if world.relations[fact.relation].functional)
    several = {key: count for key, count in counts.items() if count > 1}
    assert len(several) <= 0.03 * len(counts), list(several)[:20]


def test_names_of_one_type_differ(world: World) -> None:
    for kind, names in world.entities.items():
        keys = Counter(normalise_key(name) for name in names)
        assert not [key for key, count in keys.items() if count > 1], kind


def test_aliases_are_unambiguous(world: World) -> None:
    names = {normalise_key(name) for names in world.entities.values() for name in names}
    for alias, name in world.aliases.items():
        assert normalise_key(alias) not in names, alias
        assert world.canonical(alias) == name


def test_known_facts(world: World) -> None:
    assert world.objects("Eiffel Tower", "located_in") == ("Paris",)
    assert world.objects("Big Ben", "located_in") == ("London",)
    assert world.objects(world.canonical("USA") or "", "capital") == ("Washington, D.C.",)
    assert world.canonical("the eiffel tower") == "Eiffel Tower"
    assert world.canonical("Nowhere at all") is None
