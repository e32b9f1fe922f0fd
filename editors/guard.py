"""What an edit does beyond its facts, measured when it is made: how large it is, and which other answers it moves.

    ledger = WeightLedger(engine, lm, folder, guard=Guard(limit="refuse"))
    entry = ledger.apply(editor, edits)
    entry.locality, entry.warnings

Locality is the share of a sample of questions about other subjects that get the unedited model's own answer, right or
wrong: with the edits that were active before, and with the new one on top. So an entry shows both what it costs and how
far the model has drifted in all. Half of the questions ask what the edits say of other subjects, since damage begins
there: a method may leave everything else alone and put every tower in Rome.

Size alone is no harm. A change that gives one key g times its ordinary output has |dW| / |W| of about g / (c sqrt(in)),
c being the cosine between the key and the direction that the change works along: the same edit measures more than
twice as much at the 1,280 inputs of our bundled model as at GPT-2 XL's 6,400; one of .67 kept every other answer. So
the limit shrinks with the square root of a layer's inputs. And what size stands for can be measured: sequences collapse
with norms out of all proportion (2403.07175, section 4; 2406.11263) since ordinary keys get other outputs, which the
sample of other questions shows. Where there is a sample, a large change is therefore reported only when answers moved
with it, two of them at least, or when it is out of all proportion.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import ClassVar, Literal

from knowledge.edit import Edit
from knowledge.errors import PalimpsestError
from knowledge.relations import fill
from knowledge.text import answer_matches, normalise_key
from knowledge.world import World, load_world
from language_model.architectures import weight_in_out
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

    NEAR: ClassVar[float] = 0.5  # the share that asks for the edits' own relations

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

    def _about(self, relations: Iterable[str | None]) -> list[tuple[str, str]]:
        """(subject, question) of these relations, as far as the world has them, each in its turn."""
        world = self._world or load_world()
        rng, columns = random.Random(self.seed), []
        for name in sorted({name for name in relations if name is not None and world.by_relation.get(name)}):
            facts = rng.sample(world.by_relation[name], min(self.size, len(world.by_relation[name])))
            columns.append([(fact.subject, fill(world.relations[name].question[0], fact.subject)) for fact in facts])
        return [pair for row in zip_longest(*columns) for pair in row if pair is not None]

    def prompts(self, lm: LanguageModel, avoid: Sequence[Edit], near: Sequence[Edit] = ()) -> list[Prompt]:
        """The sample without the subjects and new objects of ``avoid``; half of it of the relations of ``near``."""
        taken = {normalise_key(name) for edit in avoid for name in (edit.subject, edit.target_new)}

        def free(pairs: Iterable[tuple[str, str]]) -> list[str]:
            return [question for subject, question in pairs if normalise_key(subject) not in taken]

        close = list(dict.fromkeys(free(self._about(edit.relation for edit in near))))[: round(self.NEAR * self.size)]
        chosen = list(dict.fromkeys([*close, *free(self._questions)]))
        return [lm.chat(question) for question in chosen[: self.size]]

    def measure(
        self,
        lm: LanguageModel,
        base: Overlay,
        added: Overlay,
        avoid: Sequence[Edit] = (),
        near: Sequence[Edit] = (),
    ) -> Locality | None:
        """How the answers stand; None where the sample is empty.

        Args:
            avoid: edits whose subjects and new objects are not asked about.
            near: edits about whose relations half of the questions ask.
        """
        prompts = self.prompts(lm, avoid, near) if self.size else []
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
        norm: from which |dW| / |W| on a module's change is large, at ``WIDTH`` inputs; other widths by 1 / sqrt(in).
        drop: largest loss of locality by one entry.
        least: smallest locality that may be left in all.
        limit: "warn" keeps the edit and says so, "refuse" throws it away.
    """

    WIDTH: ClassVar[int] = 6400  # inputs of GPT-2 XL's down-projections, for which published constants are meant
    FAR: ClassVar[float] = 10.0  # limits; a change beyond is reported whatever the sample says
    FEW: ClassVar[int] = 8  # questions; a smaller sample does not speak for the other answers

    norm: float = 0.5
    drop: float = 0.1
    least: float = 0.7
    limit: Literal["warn", "refuse"] = "warn"
    sample: LocalitySample | None = None

    def limits(self, lm: LanguageModel, names: Iterable[str]) -> dict[str, float]:
        """The |dW| / |W| of each module from which on its change is large."""
        inputs = {name: int(weight_in_out(lm.module(name)).shape[0]) for name in names}
        return {name: self.norm * (self.WIDTH / width) ** 0.5 for name, width in inputs.items()}

    def warnings(
        self, norms: Mapping[str, float], locality: Locality | None, limits: Mapping[str, float] | None = None
    ) -> tuple[str, ...]:
        """What is past a limit, in words.

        Args:
            limits: by module, as :meth:`limits` gives them; without them ``norm`` counts for every module.
        """
        found = []
        size = {name: norm / (limits or {}).get(name, self.norm) for name, norm in norms.items()}
        worst = max(size, key=lambda name: size[name], default=None)
        spoken = locality is not None and locality.n >= self.FEW
        moved = locality is not None and (locality.before - locality.after) * locality.n > 1.5
        if worst is not None and size[worst] > (1.0 if moved or not spoken else self.FAR):
            limit = norms[worst] / size[worst]
            found.append(
                f"The change of {worst} is {norms[worst]:.2f} times as large as its weight (limit {limit:.2g})."
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

    def check(
        self, norms: Mapping[str, float], locality: Locality | None, limits: Mapping[str, float] | None = None
    ) -> tuple[str, ...]:
        """The warnings; arguments as for :meth:`warnings`.

        Raises:
            GuardRefused: there are some, and the guard is set to refuse.
        """
        found = self.warnings(norms, locality, limits)
        if found and self.limit == "refuse":
            raise GuardRefused(
                f"The edit was thrown away, the model is as before: {' '.join(found)} "
                "Try another method or fewer facts at once, or set the guard to warn."
            )
        return found
