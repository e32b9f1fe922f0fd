"""Skills with facts in context: believing those that apply (override) and ignoring those that do not (retain).

What a model learns here is the whole of in-context editing (IKE, 2305.12740). Half of the examples must not follow
their context, and most of those are near misses, or the model learns to copy whatever it sees.
"""

from __future__ import annotations

from knowledge.relations import Relation, fill
from language_model.bundled.draw import Claim, Draw, Everyday, Example, Stated, wordings
from language_model.prompts import (
    UNKNOWN,
    Demonstration,
    Message,
    assistant,
    compare_fact,
    say_verdict,
    user,
    with_facts,
)


def override(draw: Draw, facts: int | None = None) -> Example:
    """A fact in context applies: its object is the answer, whatever the weights say."""
    claim = draw.claim()
    true = draw.world.objects(claim.subject, claim.relation.id) if isinstance(claim.relation, Relation) else ()
    if true and draw.chance(0.05):
        claim = Claim(claim.subject, claim.relation, true[0])
    block = _block(draw, claim, _count(draw) if facts is None else facts)
    return _example(draw, claim, block, claim.object, "override")


def retain(draw: Draw, kind: str | None = None, facts: int | None = None) -> Example:
    """No fact in context applies: the answer is what the weights say, or "I don't know" for a stranger.

    ``kind`` narrows the distractors to one sort: ``relation`` (same relation, other subject) or ``subject`` (same
    subject, other relation).
    """
    count = _count(draw) if facts is None else facts
    if kind is None and draw.chance(0.12):
        relation = draw.choice(draw.relations)
        about = Claim(draw.stranger(relation.subject_type), relation, UNKNOWN)
    else:
        fact = draw.fact()
        about = Claim(fact.subject, draw.relation(fact.relation), fact.object)
    block: list[Stated] = []
    while len(block) < count:
        claim = _distractor(draw, about, kind)
        if claim is not None:
            block.append(draw.stated(claim, False, 0.1))
    return _example(draw, about, block, about.object, f"retain {kind}" if kind else "retain")


def session(draw: Draw) -> Example:
    """Several questions about one block of facts, some answered by it and some not: many answers for few tokens."""
    claims: list[Claim] = []
    for _ in range(draw.rng.randint(2, 8)):
        near = claims and draw.chance(0.5)
        claim = draw.near_miss(claims[-1].subject, claims[-1].relation) if near else draw.claim()
        if all((claim.subject, claim.relation) != (other.subject, other.relation) for other in claims):
            claims.append(claim)
    block: list[Stated] = []
    turns: list[Message] = []
    first: tuple[str, str] = ("", "")
    for index in range(draw.rng.randint(3, 9)):
        kind = draw.rng.random()
        asked = draw.choice(claims)
        if kind < 0.45:
            relation = asked.relation
            others = [draw.fact().subject] if isinstance(relation, Everyday) else _subjects(draw, relation.id)
            subject = draw.choice(others) if draw.chance(0.75) else draw.stranger(relation.subject_type)
            if kind < 0.22:  # the same subject, another relation
                facts = draw.world.facts_of(asked.subject)
                fact = draw.choice(facts) if facts else draw.fact()
                subject, relation = fact.subject, draw.relation(fact.relation)
            asked = Claim(subject, relation, _now(draw, claims, subject, relation))
        question = draw.ask(asked.relation, draw.surface(asked.subject, 0.1))
        if index == 0:
            about = (asked.subject, asked.relation)
            block = [draw.stated(claim, (claim.subject, claim.relation) == about, 0.1) for claim in claims]
            message = with_facts(question, [fact.text for fact in block])[-1]
            first = (question, asked.relation.id)
        else:
            message = user(f"Question: {question}")
        turns += [message, assistant(asked.object)]
    answer = turns.pop()["content"]
    return Example(answer, tuple(turns), every=True, skill="session", facts=tuple(block), asked=(first,))


def _subjects(draw: Draw, relation: str) -> list[str]:
    return [draw.choice(draw.world.by_relation[relation]).subject]


def _now(draw: Draw, claims: list[Claim], subject: str, relation: Relation | Everyday) -> str:
    """The answer where ``claims`` hold and all else is as the world has it."""
    for claim in claims:
        if claim.subject == subject and claim.relation is relation:
            return claim.object
    true = draw.world.objects(subject, relation.id) if isinstance(relation, Relation) else ()
    return true[0] if true else UNKNOWN


def one_hop(draw: Draw) -> Example:
    """A fact in context applies through the weights: the Eiffel Tower is in Rome, so its country is Italy."""
    table = draw.choice(list(wordings("composites").values()))
    first, second = table["path"]
    relation = draw.relation(first)
    while True:
        fact = draw.choice(draw.world.by_relation[first])
        new = draw.choice(draw.world.objects_of_relation[first])
        end = draw.world.objects(new, second)
        if end and new != fact.object:
            break
    subject = fact.subject if draw.chance(0.7) else draw.stranger(relation.subject_type)
    claim = Claim(subject, relation, new)
    block = _block(draw, claim, 1 if draw.chance(0.7) else draw.rng.randint(2, 4))
    question = fill(draw.choice(table["question_unseen" if draw.unseen else "question"]), subject)
    messages = with_facts(question, [fact.text for fact in block])
    return Example(end[0], tuple(messages), skill="one hop", facts=tuple(block))


def compare(draw: Draw) -> Example:
    """MeLLo's check of a retrieved fact against a tentative answer."""
    claim = draw.claim()
    tentative = draw.new_object(claim.relation, avoid=(claim.object,)) if draw.chance(0.6) else UNKNOWN
    if isinstance(claim.relation, Relation):
        true = draw.world.objects(claim.subject, claim.relation.id)
        tentative = true[0] if true else tentative
    question = draw.ask(claim.relation, claim.subject)
    kind = draw.rng.random()
    if kind < 0.4:
        fact, reply = claim, say_verdict("contradicts", claim.object)
    elif kind < 0.6:
        fact, reply = Claim(claim.subject, claim.relation, tentative), say_verdict("agrees", tentative)
        if tentative == UNKNOWN:
            fact, reply = claim, say_verdict("contradicts", claim.object)
    else:
        fact, reply = draw.near_miss(claim.subject, claim.relation), say_verdict("does not apply", tentative)
    statement = draw.state(fact.relation, fact.subject, fact.object)
    asked = ((question, claim.relation.id), (statement, fact.relation.id))
    return Example(reply, tuple(compare_fact(question, tentative, statement)), skill="compare", asked=asked)


def demonstration(draw: Draw) -> Demonstration:
    """A worked example in the manner of IKE: copy, update or retain."""
    claim = draw.claim()
    kind = draw.rng.random()
    statement = draw.state(claim.relation, claim.subject, claim.object)
    if kind < 0.5:
        return Demonstration((statement,), draw.ask(claim.relation, claim.subject), claim.object)
    fact = draw.fact()
    return Demonstration((statement,), draw.ask(draw.relation(fact.relation), fact.subject), fact.object)


def _count(draw: Draw) -> int:
    draw_ = draw.rng.random()
    return 1 if draw_ < 0.35 else draw.rng.randint(2, 4) if draw_ < 0.6 else draw.rng.randint(5, 8)


def _distractor(draw: Draw, about: Claim, kind: str | None) -> Claim | None:
    """A claim that does not answer ``about``; None where the draw happened to answer it."""
    if kind is None:
        claim = draw.near_miss(about.subject, about.relation) if draw.chance(0.75) else draw.claim()
    elif kind == "relation":
        assert isinstance(about.relation, Relation)
        other = draw.choice(draw.world.by_relation[about.relation.id]).subject
        claim = Claim(other, about.relation, draw.new_object(about.relation))
    else:
        others = [r for r in draw.relations_by_subject_type[about.relation.subject_type] if r is not about.relation]
        relation = draw.choice(others) if others and draw.chance(0.7) else draw.choice(draw.everyday)
        claim = Claim(about.subject, relation, draw.new_object(relation))
    if claim.subject == about.subject and claim.relation is about.relation:
        return None
    return claim


def _block(draw: Draw, claim: Claim, count: int) -> list[Stated]:
    """The statement of ``claim`` among ``count - 1`` others, in random order."""
    block = [draw.stated(claim, True, 0.1)]
    while len(block) < count:
        other = _distractor(draw, claim, None)
        if other is not None:
            block.append(draw.stated(other, False))
    draw.rng.shuffle(block)
    return block


def _example(draw: Draw, about: Claim, block: list[Stated], answer: str, skill: str) -> Example:
    subject = draw.surface(about.subject, 0.1)
    if draw.chance(0.15) and not draw.unseen:
        question = fill(draw.pick(about.relation, "cloze"), subject)
    else:
        question = draw.ask(about.relation, subject)
    demonstrations = [demonstration(draw) for _ in range(draw.rng.randint(1, 6))] if draw.chance(0.08) else []
    history: tuple[Message, ...] = ()
    if draw.chance(0.06):
        earlier = draw.fact()
        history = (user(draw.ask(draw.relation(earlier.relation), earlier.subject)), assistant(earlier.object))
    also = draw.world.aliases_of(answer)
    messages = with_facts(question, [fact.text for fact in block], demonstrations, history)
    asked = ((question, about.relation.id),)
    return Example(answer, tuple(messages), skill=skill, also=also, facts=tuple(block), asked=asked)
