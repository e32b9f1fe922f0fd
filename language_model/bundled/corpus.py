"""The corpus of the bundled model: an endless, seeded stream of examples, drawn skill by skill.

    corpus = Corpus(load_world(), seed=0)
    next(iter(corpus))                 # Example(answer='Paris', messages=(user('Where is the Eiffel Tower?'),), ...)

The mix decides more than the model's size. It moves during training: first mostly recall, so that there are facts
to override, then mostly context.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import islice

from knowledge.world import World, load_world
from language_model.bundled import chains, context, copying, recall
from language_model.bundled.draw import Draw, Example

Skill = Callable[[Draw], Example]

# skill, share of the examples at the start and at the end of training
MIX: tuple[tuple[Skill, float, float], ...] = (
    (copying.repeat, 2.0, 0.2),
    (copying.look_up, 4.0, 0.6),
    (recall.chat_question, 34.0, 45.0),
    (recall.chat_cloze, 6.0, 6.0),
    (recall.completion, 12.0, 18.0),
    (recall.statement, 3.0, 0.5),
    (recall.inverse, 2.0, 1.5),
    (recall.composite, 4.0, 10.0),
    (recall.description, 1.0, 0.6),
    (recall.unknown, 6.0, 11.0),
    (recall.follow_up, 3.0, 4.0),
    (recall.smalltalk, 0.5, 0.5),
    (recall.correction, 1.5, 2.0),
    (context.override, 8.0, 24.0),
    (context.retain, 10.0, 26.0),
    (context.session, 8.0, 3.0),
    (context.one_hop, 2.0, 4.0),
    (context.compare, 4.0, 9.0),
    (chains.step, 6.0, 22.0),
)


class Corpus:
    """Examples without end; the same seed gives the same stream."""

    def __init__(self, world: World | None = None, seed: int = 0) -> None:
        self.draw = Draw(world or load_world(), random.Random(seed))

    def sample(self, progress: float = 1.0) -> Example:
        """One example of the mix at this point of training (0 start, 1 end)."""
        weights = [start + (end - start) * progress for _, start, end in MIX]
        skill = self.draw.rng.choices([skill for skill, _, _ in MIX], weights)[0]
        return skill(self.draw)

    def __iter__(self) -> Iterator[Example]:
        while True:
            yield self.sample()


def texts(count: int, seed: int = 0) -> list[str]:
    """Ordinary text of the bundled model's kind, for second moments and perplexity: one statement each."""
    draw = Draw(load_world(), random.Random(seed))

    def lines() -> Iterator[str]:
        while True:
            fact = draw.fact()
            relation = draw.relation(fact.relation)
            yield draw.state(relation, fact.subject, fact.object)

    return list(islice(lines(), count))


def plain(seed: int = 0) -> Iterator[Example]:
    """Questions and completions about single facts, without any facts before them; endless."""
    draw = Draw(load_world(), random.Random(seed))
    while True:
        for skill in (
            recall.chat_question,
            recall.completion,
            recall.chat_question,
            recall.completion,
            recall.chat_cloze,
        ):
            yield skill(draw)
