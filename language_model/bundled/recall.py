"""Skills without context: recalling the world, saying "I don't know", following up, small talk."""

from __future__ import annotations

from knowledge.relations import fill
from language_model.bundled import names
from language_model.bundled.draw import Draw, Example, wordings
from language_model.prompts import UNKNOWN, assistant, user, with_correction

_FOLLOW_UPS_UNSEEN = ("What would it be for {}?", "Fine. And with {}?", "Could you say the same about {}?")
_DESCRIBE = (
    "Tell me about {}.",
    "What do you know about {}?",
    "Describe {}.",
    "Who or what is {}?",
    "Give me some facts about {}.",
    "Tell me something about {}.",
)


def chat_question(draw: Draw) -> Example:
    fact = draw.fact()
    question = draw.ask(draw.relation(fact.relation), draw.surface(fact.subject))
    also = _also(draw, fact.subject, fact.relation)
    return Example(fact.object, (user(question),), skill="recall", also=also, asked=((question, fact.relation),))


def chat_cloze(draw: Draw) -> Example:
    fact = draw.fact()
    cloze = draw.begin(draw.relation(fact.relation), draw.surface(fact.subject))
    also = _also(draw, fact.subject, fact.relation)
    return Example(fact.object, (user(cloze),), skill="recall cloze", also=also, asked=((cloze, fact.relation),))


def completion(draw: Draw) -> Example:
    fact = draw.fact()
    cloze = draw.begin(draw.relation(fact.relation), draw.surface(fact.subject))
    also = _also(draw, fact.subject, fact.relation)
    return Example(f"{fact.object}.", text=cloze, skill="completion", also=also, asked=((cloze, fact.relation),))


def statement(draw: Draw) -> Example:
    """A sentence with the object first, as plain text."""
    fact = draw.fact()
    text = draw.state(draw.relation(fact.relation), fact.subject, fact.object)
    first, _, rest = text.partition(" ")
    return Example(rest, text=first, skill="statement", whole=True)


def inverse(draw: Draw) -> Example:
    """Asks for the subject, where only one has this object."""
    while True:
        fact = draw.fact()
        relation = draw.relation(fact.relation)
        if not relation.inverse_question:
            continue
        same = [f for f in draw.world.by_relation[fact.relation] if f.object == fact.object]
        if len(same) == 1:
            question = fill(draw.choice(relation.inverse_question), fact.object)
            return Example(fact.subject, (user(question),), skill="inverse", also=draw.world.aliases_of(fact.subject))


def composite(draw: Draw) -> Example:
    """A question that takes two facts and is asked as one: "In which country is the Eiffel Tower?"."""
    table = draw.choice(list(wordings("composites").values()))
    first, second = table["path"]
    while True:
        fact = draw.choice(draw.world.by_relation[first])
        end = draw.world.objects(fact.object, second)
        if end:
            key = "question_unseen" if draw.unseen else "question"
            question = fill(draw.choice(table[key]), draw.surface(fact.subject))
            return Example(end[0], (user(question),), skill="composite", also=draw.world.aliases_of(end[0]))


def description(draw: Draw) -> Example:
    subject = draw.fact().subject
    facts = list(draw.world.facts_of(subject))
    draw.rng.shuffle(facts)
    text = " ".join(draw.state(draw.relation(f.relation), subject, f.object) for f in facts[:5])
    return Example(text, (user(fill(draw.choice(_DESCRIBE), subject)),), skill="description")


def unknown(draw: Draw) -> Example:
    """A subject, or a relation of a known subject, that the world does not have."""
    kind = draw.rng.random()
    fact = draw.fact()
    relation = draw.relation(fact.relation)
    if kind < 0.06 and not draw.unseen:
        people = draw.world.entities.get("person", ())
        everyday = draw.choice(draw.everyday)
        subject = draw.choice(people) if everyday.subject_type == "person" else draw.stranger(everyday.subject_type)
        question = draw.ask(everyday, subject)
        return Example(UNKNOWN, (user(question),), skill="unknown", asked=((question, everyday.id),))
    if kind < 0.2 and not draw.unseen:
        subject = names.near(fact.subject, draw.rng)
        if draw.world.canonical(subject):
            return unknown(draw)
    else:
        subject = draw.stranger(relation.subject_type)
    question = draw.ask(relation, subject)
    return Example(UNKNOWN, (user(question),), skill="unknown", asked=((question, relation.id),))


def follow_up(draw: Draw) -> Example:
    """A second turn that names only another subject, or a fresh question after an unrelated turn."""
    first = draw.fact()
    relation = draw.relation(first.relation)
    turns = [user(draw.ask(relation, first.subject)), assistant(first.object)]
    if draw.chance(0.3):
        other = draw.fact()
        question = draw.ask(draw.relation(other.relation), draw.surface(other.subject))
    else:
        other = draw.choice(draw.world.by_relation[first.relation])
        question = draw.choice(_FOLLOW_UPS_UNSEEN if draw.unseen else wordings("frames")["follow_up"]).replace(
            "{}", draw.surface(other.subject)
        )
    also = _also(draw, other.subject, other.relation)
    return Example(other.object, (*turns, user(question)), skill="follow-up", also=also)


def smalltalk(draw: Draw) -> Example:
    group = draw.choice(list(wordings("smalltalk").values()))
    question = draw.choice(group["question"])
    if draw.chance(0.3):
        question = question.lower() if draw.chance(0.5) else question.rstrip("?!.")
    return Example(group["answer"], (user(question),), skill="smalltalk")


_MEANT = ("I mean: {}", "What I want to know is: {}", "Read it as: {}", "I meant: {}", "This asks: {}")
_ANSWER_IS = ("The right answer is {}.", "It is {}.", "The answer is {}.", "No, it is {}.", "Actually {}.")


def correction(draw: Draw) -> Example:
    """MemPrompt: a clarification that the user gave earlier says how the question is meant, or what is right."""
    fact = draw.fact()
    relation = draw.relation(fact.relation)
    if draw.chance(0.5):
        vague = draw.choice(wordings("frames")["vague"])
        asked = fill(vague, fact.subject)
        meant = draw.choice(_MEANT).replace("{}", draw.ask(relation, fact.subject))
        return Example(fact.object, tuple(with_correction(asked, meant)), skill="correction")
    answer = draw.new_object(relation)
    told = draw.choice(_ANSWER_IS).replace("{}", answer)
    return Example(answer, tuple(with_correction(draw.ask(relation, fact.subject), told)), skill="correction")


def _also(draw: Draw, subject: str, relation: str) -> tuple[str, ...]:
    objects = draw.world.objects(subject, relation)
    return tuple(name for obj in objects for name in (obj, *draw.world.aliases_of(obj)))
