"""Multi-hop questions and their steps, in the prompts of MeLLo (2305.14795).

A question nests noun phrases: "What is the currency of {the country where {Big Ben} stands}?". The solved part of a
chain holds whatever the hops answered, edited or not, so half of the intermediate answers here are not the true ones.
"""

from __future__ import annotations

from dataclasses import dataclass

from knowledge.edit import Fact
from language_model.bundled.draw import Draw, Example, fill_noun, wordings
from language_model.prompts import Hop, next_step, say_final, say_subquestion


@dataclass(frozen=True, slots=True)
class Chain:
    """A multi-hop question with its facts, first hop first."""

    question: str
    subject: str  # the first entity as the question writes it
    facts: tuple[Fact, ...]

    @property
    def answer(self) -> str:
        return self.facts[-1].object


def chain(draw: Draw, hops: int, stranger_rate: float = 0.0) -> Chain:
    """A random chain of facts as one question; at ``stranger_rate`` it starts at an entity nobody knows."""
    facts = draw.world.sample_chains(hops, 1, draw.rng)[0]
    if draw.chance(stranger_rate):
        subject = draw.stranger(draw.relation(facts[0].relation).subject_type)
    else:
        subject = draw.surface(facts[0].subject)
    return Chain(chain_question(draw, facts, subject), subject, facts)


def chain_question(draw: Draw, facts: tuple[Fact, ...], subject: str) -> str:
    """One question for a chain; two hops that have a common phrase ("the country where X stands") may use it."""
    phrase = subject
    start = 0
    while start < len(facts) - 1:
        joined = _composite(draw, facts, start) if start + 2 < len(facts) else None
        if joined is not None:
            phrase, start = fill_noun(joined, phrase), start + 2
        else:
            phrase, start = fill_noun(draw.pick(draw.relation(facts[start].relation), "noun"), phrase), start + 1
    return draw.ask(draw.relation(facts[-1].relation), phrase)


def _composite(draw: Draw, facts: tuple[Fact, ...], start: int) -> str | None:
    path = [fact.relation for fact in facts[start : start + 2]]
    fitting = [t for t in wordings("composites").values() if t["path"] == path]
    if not fitting or not draw.chance(0.6):
        return None
    table = draw.choice(fitting)
    return draw.choice(table["noun_unseen" if draw.unseen else "noun"])


def step(draw: Draw) -> Example:
    """One step of a chain: the next subquestion, or the final answer after the last hop."""
    length = draw.rng.choice((1, 2, 2, 2, 3, 3, 3, 4, 4))
    task = chain(draw, length, stranger_rate=0.25)
    done = draw.rng.randint(0, length)
    hops: list[Hop] = []
    subject = task.subject
    for fact in task.facts[:done]:
        relation = draw.relation(fact.relation)
        answer = fact.object if draw.chance(0.5) else draw.new_object(relation, stranger_rate=0.3)
        hops.append(Hop(relation.ask(subject), answer))
        subject = answer
    if done == length:
        reply = say_final(subject)
    else:
        reply = say_subquestion(draw.relation(task.facts[done].relation).ask(subject))
    return Example(reply, tuple(next_step(task.question, hops)), skill=f"{length}-hop step")
