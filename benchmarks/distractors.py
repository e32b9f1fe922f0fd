"""Facts that no question asks for, about the very entities of the questions' chains."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from knowledge.world import load_world
from memory.store import FactStore
from memory.vocabulary import bundled as vocabulary
from memory.writing import Draft

# groups of the vocabulary that say a relation of the file over again; a distractor of one would be a second truth
_SAME_AS_FILE = frozenset(
    "performer manager citizenship official_language founded_by spouse field_position sport work_country sport_origin "
    "dish_origin capital manufacturer creator work_creator developer ceo child broadcaster continent head_coach "
    "employer birthplace notable_work author death_place occupation university chairperson headquarters state_capital "
    "country director team league member_of_band captain designer producer product".split()
)


def distract(store: FactStore, number: int, seed: int) -> int:
    """Facts of other relations about every entity of the chains, at least eight each, ``number`` in all."""
    rng = random.Random(seed)
    facts = store.list(limit=None)
    taken = {(fact.subject_key, fact.relation_key) for fact in facts}
    said = {fact.relation: (fact.prompt, fact.question) for fact in facts if fact.prompt and fact.question}
    entities = {fact.subject: fact.subject_key for fact in facts} | {fact.object: fact.object_key for fact in facts}
    world = load_world()
    names = [name for kind in world.entities.values() for name in kind]
    # relations of the file, in its own wordings, and those of the vocabulary that the file does not have
    file_relations = [
        (str(relation), prompt, (question or "").replace(_subject(facts, str(relation)), "{}"))
        for relation, (prompt, question) in said.items()
    ]
    others = [
        (sense.id, sense.cloze[0], next(q for q in sense.question if q.endswith("?")))
        for sense in vocabulary().senses
        if not sense.subject_type and sense.group not in _SAME_AS_FILE
    ]
    drafts: list[Draft] = []
    pool = [*file_relations, *others]
    objects = [*entities, *names]

    def add(subject: str, key: str) -> None:
        relation, prompt, question = rng.choice(pool)
        if (key, relation.casefold()) in taken:
            return
        taken.add((key, relation.casefold()))
        asked = question.replace("{}", subject) if "{}" in question else None
        word = store.lexicon.word(subject, relation, rng.choice(objects), prompt=prompt, question=asked)
        drafts.append(Draft(word, source="distractor"))

    for subject, key in entities.items():
        before = len(drafts)
        while len(drafts) < before + 8:
            add(subject, key)
    while len(drafts) < number:
        subject = rng.choice([*entities, *names]) if rng.random() < 0.5 else f"{rng.choice(names)} {rng.randint(2, 99)}"
        add(subject, store.lexicon.entity_key(subject))
    for start in range(0, len(drafts), 1000):
        store.add_many(drafts[start : start + 1000])
    return len(drafts)


def _subject(facts: Sequence[Any], relation: str) -> str:
    return next(str(fact.subject) for fact in facts if fact.relation == relation and fact.question)
