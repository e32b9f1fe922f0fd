"""Counterfactual edits of the bundled world, for benchmarks: real facts, each with another object of its relation."""

from __future__ import annotations

import random
from collections.abc import Callable

from knowledge.edit import Edit, Fact
from knowledge.world import World


def counterfactuals(
    world: World, count: int, seed: int = 0, *, keep: Callable[[Fact], bool] | None = None
) -> list[Edit]:
    """So many edits of different facts, each functional relation as likely as any other; same seed, same edits.

    Args:
        keep: which facts may be drawn; all by default. Fewer edits come back where hardly any may.
    """
    rng = random.Random(seed)
    objects = world.objects_of_relation
    relations = [r.id for r in world.relations.values() if r.functional and len(objects.get(r.id, ())) > 1]
    found: dict[tuple[str, str], Edit] = {}
    for _ in range(200 * count):
        if len(found) == count:
            break
        relation = rng.choice(relations)
        fact = rng.choice(world.by_relation[relation])
        target = rng.choice([name for name in objects[relation] if name != fact.object])
        if keep is None or keep(fact):
            found.setdefault((fact.subject, relation), world.edit(fact.subject, relation, target))
    return list(found.values())
