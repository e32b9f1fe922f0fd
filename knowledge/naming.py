"""What is known about names: their spelling, their types, and which relations they go with.

The world knows most names that people use. A stranger is judged by its words: something called "... Tower" is a
landmark, "... University" a university, because most names of the world with these words are.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import lru_cache

from knowledge.relations import Relation
from knowledge.text import normalise_key
from knowledge.wordings import word_set
from knowledge.world import World

_FITS, _FOREIGN, _HINT = 6.0, -7.0, 1.5
_WORDS = word_set("is was are were has had that which who")
_PRONOUNS = word_set("it he she they this that these those there we you i")
_KIND = re.compile(r"^(?:the )?(?:city|town|country|continent|state|sport|field|language) of (?=\S)", re.IGNORECASE)


class Names:
    """Names of a world, and of strangers that the user told of."""

    def __init__(self, world: World | None, relations: Mapping[str, Relation], known: Iterable[str] = ()) -> None:
        self.world = world
        self.relations = relations
        self._extra = {normalise_key(name): name for name in known}
        self._objects: dict[str, dict[str, str]] = {name: {} for name in relations}
        self._usual: dict[str, float] = {}
        for name in relations:
            facts = len(world.by_relation.get(name, ())) if world else 0
            self._usual[name] = 0.02 * math.log1p(facts)
        for fact in dict.fromkeys((fact.relation, fact.object) for fact in (world.facts if world else ())):
            if fact[0] in self._objects:
                self._objects[fact[0]].setdefault(normalise_key(fact[1]), fact[1])
        self._kinds = _kinds_of_words(world) if world else {}
        self._look_up = lru_cache(maxsize=4096)(self._resolve)

    def _resolve(self, name: str) -> tuple[str | None, frozenset[str], str]:
        """Canonical spelling, types, key."""
        key = normalise_key(name)
        canonical = self.world.canonical(name) if self.world else None
        types = frozenset(self.world.types_of(canonical)) if self.world and canonical else frozenset()
        return canonical or self._extra.get(key), types, key

    def known(self, name: str) -> bool:
        return self._look_up(name)[0] is not None

    def spelled(self, name: str) -> str:
        """The name as the world spells it; a stranger's as it was typed."""
        return self._look_up(name)[0] or name

    def spelled_object(self, name: str, relation: str) -> str:
        """An object in the relation's own spelling; an alias stays, since the user chose it."""
        short = _KIND.sub("", name)
        if short != name and self.fits_object(short, relation) >= 3:  # "the city of Rome"
            name = short
        key = self._look_up(name)[2]
        if key in self._objects[relation]:
            return self._objects[relation][key]
        canonical, types, _ = self._look_up(name)
        if types and _type(self.relations[relation].object_type) not in types:
            return name
        return canonical if canonical is not None and normalise_key(canonical) == key else name

    def fits_subject(self, name: str, relation: str) -> float:
        """How well the name goes with the relation as its subject: 6 for the right type, negative for a wrong one."""
        canonical, types, _ = self._look_up(name)
        wanted = _type(self.relations[relation].subject_type)
        if types:
            has_it = self.world is not None and bool(self.world.objects(canonical or "", relation))
            return _FITS + (0.5 if has_it else 0.0) if wanted in types else _FOREIGN
        words = name.split()
        if name.casefold() in _PRONOUNS:
            return -9.0
        odd = -3.0 if len(words) > 8 or any(word.lower() in _WORDS for word in words) else 0.0
        hinted = [self._kinds[word.casefold()] for word in words if word.casefold() in self._kinds]
        hint = 0.0 if not hinted else (_HINT if wanted in hinted else -_HINT / 2)
        return 0.1 + hint + odd

    def fits_object(self, name: str, relation: str) -> float:
        """How well the name goes with the relation as its object."""
        canonical, types, key = self._look_up(name)
        if key in self._objects[relation] or (canonical and normalise_key(canonical) in self._objects[relation]):
            return 4.0
        if types:
            return 3.0 if _type(self.relations[relation].object_type) in types else -3.0
        short = _KIND.sub("", name)
        if short != name:
            return self.fits_object(short, relation)
        words = name.split()
        return -3.0 if len(words) > 8 or any(word.lower() in _WORDS for word in words) else 0.0

    def states(self, subject: str, relation: str, obj: str) -> bool:
        """True where the world itself says so."""
        if self.world is None:
            return False
        objects = self.world.objects(self.spelled(subject), relation)
        return any(normalise_key(known) == self._look_up(obj)[2] for known in objects)

    def usual(self, relation: str) -> float:
        """A small bonus for relations with many facts."""
        return self._usual[relation]


def _type(name: str) -> str:
    return name.replace(" ", "_")


def _kinds_of_words(world: World) -> dict[str, str]:
    """Words that nearly always stand in names of one type, with that type."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for kind, names in world.entities.items():
        for name in names:
            for word in {word.casefold() for word in name.split() if len(word) > 2}:
                seen[word][kind] += 1
    found: dict[str, str] = {}
    for word, kinds in seen.items():
        kind, count = kinds.most_common(1)[0]
        if count >= 3 and count / kinds.total() >= 0.6:
            found[word] = kind
    return found
