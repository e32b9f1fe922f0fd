"""What an edit does beyond its facts, measured when it is made: how large it is, and which other answers it moves.

    ledger = WeightLedger(engine, lm, folder, guard=Guard(limit="refuse"))
    entry = ledger.apply(editor, edits)
    entry.locality, entry.warnings

Locality is the share of a sample of questions about other subjects that get the unedited model's own answer, right or
wrong: with the edits that were active before, and with the new one on top. So an entry shows both what it costs and how
far the model has drifted in all.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from knowledge.edit import Edit
from knowledge.errors import PalimpsestError
from knowledge.relations import fill
from knowledge.text import answer_matches, normalise_key
from knowledge.world import World, load_world
from language_model.model import LanguageModel
from language_model.overlay import Overlay
from language_model.text import Prompt


class GuardRefused(PalimpsestError):
    """A finished edit was past the guard's limits and was thrown away."""


@dataclass(frozen=True)
class Locality:
    """Shares of ``n`` other answers that are still the unedited model's."""

    before: float
    after: float
    n: int


class LocalitySample:
    """Questions about subjects that no edit names.

    Args:
        size: how many; 0 measures nothing.
        seed: of the draw: the same questions for every entry, less those about edited subjects.
    """

    def __init__(self, size: int = 24, seed: int = 0, world: World | None = None) -> None:
        self.size, self.seed = size, seed
        self._world = world

    @cached_property
    def _questions(self) -> list[tuple[str, str]]:
        """(subject, question) in a random order, each relation as often as any other."""
        world = self._world or load_world()
        rng = random.Random(self.seed)
        relations = [relation for relation in world.relations.values() if world.by_relation.get(relation.id)]
        found = []
        for _ in range(4 * self.size):
            relation = rng.choice(relations)
            fact = rng.choice(world.by_relation[relation.id])
            found.append((fact.subject, fill(relation.question[0], fact.subject)))
        return list(dict.fromkeys(found))

    def prompts(self, lm: LanguageModel, avoid: Sequence[Edit]) -> list[Prompt]:
        """The sample without the subjects and new objects of ``avoid``."""
        taken = {normalise_key(name) for edit in avoid for name in (edit.subject, edit.target_new)}
        chosen = [question for subject, question in self._questions if normalise_key(subject) not in taken]
        return [lm.chat(question) for question in chosen[: self.size]]

    def measure(self, lm: LanguageModel, base: Overlay, added: Overlay, avoid: Sequence[Edit] = ()) -> Locality | None:
        """How the answers stand; None where the sample is empty."""
        prompts = self.prompts(lm, avoid) if self.size else []
        if not prompts:
            return None
        count = len(prompts)
        overlays = [None] * count + [base or None] * count + [base + added] * count
        said = lm.generate(prompts * 3, overlays=overlays, max_new_tokens=8)
        plain, before, after = said[:count], said[count : 2 * count], said[2 * count :]
        return Locality(_agreement(plain, before), _agreement(plain, after), count)


def _agreement(first: Sequence[str], second: Sequence[str]) -> float:
    return sum(a == b or answer_matches(a, b) for a, b in zip(first, second, strict=True)) / len(first)


@dataclass(frozen=True)
class Guard:
    """Limits, and what happens past them.

    Args:
        norm: largest |dW| / |W| of any module. Our editors stay below 0.1 for one fact on every model that we
            measured; a sequence that collapses passes 1.
        drop: largest loss of locality by one entry.
        least: smallest locality that may be left in all.
        limit: "warn" keeps the edit and says so, "refuse" throws it away.
    """

    norm: float = 0.5
    drop: float = 0.1
    least: float = 0.7
    limit: Literal["warn", "refuse"] = "warn"
    sample: LocalitySample | None = None

    def warnings(self, norms: dict[str, float], locality: Locality | None) -> tuple[str, ...]:
        """What is past a limit, in words."""
        found = []
        worst = max(norms, key=lambda name: norms[name], default=None)
        if worst is not None and norms[worst] > self.norm:
            found.append(
                f"The change of {worst} is {norms[worst]:.2f} times as large as its weight (limit {self.norm:g})."
            )
        if locality is not None:
            lost = locality.before - locality.after
            # One answer of a small sample is no evidence: a limit counts from the second.
            if lost > self.drop and lost * locality.n > 1.5:
                found.append(
                    f"{lost:.0%} of {locality.n} other answers changed with this edit (limit {self.drop:.0%})."
                )
            elif locality.after < self.least:
                found.append(
                    f"Only {locality.after:.0%} of {locality.n} other answers are still the unedited model's "
                    f"(limit {self.least:.0%}); most of it comes from earlier edits."
                )
        return tuple(found)

    def check(self, norms: dict[str, float], locality: Locality | None) -> tuple[str, ...]:
        """The warnings.

        Raises:
            GuardRefused: there are some, and the guard is set to refuse.
        """
        found = self.warnings(norms, locality)
        if found and self.limit == "refuse":
            raise GuardRefused(
                f"The edit was thrown away, the model is as before: {' '.join(found)} "
                "Try another method or fewer facts at once, or set the guard to warn."
            )
        return found
