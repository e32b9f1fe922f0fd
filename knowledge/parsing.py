"""Understands a plain sentence as a fact.

    parse_statement("The Eiffel Tower is located in Rome.")
    ParsedFact(subject='Eiffel Tower', relation='located_in', object='Rome', ...)
    parse_correction("No, it's in Rome.", question="Where is the Eiffel Tower?")     # the same

Every wording of every relation is tried (:mod:`knowledge.wordings`), also those with the object first ("Rome is home to
the Eiffel Tower"). What fits several relations is decided by what the world knows of the names: a tower has no capital.
A sentence about no relation of the world ("Acme's CEO is Jane Doe", "My dog is called Rex") is split by its grammar
(:mod:`knowledge.plain_sentences`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from knowledge.edit import Edit
from knowledge.errors import InvalidInput
from knowledge.naming import Names
from knowledge.plain_sentences import split_sentence
from knowledge.relations import Relation
from knowledge.text import squeeze, without_stop
from knowledge.wordings import Match, bare, compile_wordings, fold, match_all
from knowledge.world import World, load_world

EXAMPLE = '"The Eiffel Tower is located in Rome."'
FORMS = f'{EXAMPLE}, "The CEO of Acme is Jane Doe.", "Acme\'s CEO is Jane Doe." or "Rex belongs to Anna."'
LONGEST = 1_000  # characters

# Said around a fact without being part of it.
_LEAD = re.compile(
    r"^(?:(?:(?:no|nope|wrong|incorrect|not quite|well|sorry|correction|update|fact|new fact|note|today|nowadays|now|"
    r"these days|but|and|so|ok|okay|hey|that(?:['’]s| is) (?:wrong|not right|incorrect|false|not true)|"
    r"you(?:['’]re| are) (?:wrong|mistaken))\s*[,:;.!–—-]+|"
    r"(?:please )?(?:note|remember)(?: that)?:?|from now on,?|actually,?|in fact,?|fyi[,:]?|"
    r"(?:it is (?:well )?known|i (?:just )?(?:learned|heard|think|know)) that|did you know that)\s+)+",
    re.IGNORECASE,
)
_ASIDE = re.compile(
    r"\b(is|was|are|were|has|have|had|lies|stands|belongs|comes)\s+"
    r"(?:now|actually|really|currently|in fact|indeed|in reality)\s+",
    re.IGNORECASE,
)
_ANSWER = re.compile(  # what stands before the object in an answer that does not name its subject: "it's located in"
    r"^(?:(?:it|he|she|they|that|this|the answer)\s+)?(?:(?:is|was|are|were|lies|stands)\s+)?"
    r"(?:(?:located|situated|born|called|named)\s+)?(?:(?:in|at|by|from|of|on)\s+)?(?:the\s+)?(?=\S)",
    re.IGNORECASE,
)
_CONTRACTED = re.compile(r"^(it|he|she|they|that|this|who|there)['’](s|re)\b", re.IGNORECASE)
_NEGATED = re.compile(r"\b(?:is|was|are|were|does|did|do|has|have|had)(?: not|n['’]t)\b", re.IGNORECASE)
_YEAR = re.compile(r"^(?:\w+ )?(?:\d{1,2}(?:st|nd|rd|th)?,? )?(?:\w+,? )?(?:1\d|20)\d\d(?:s| AD| BC)?$")
_PRONOUN = re.compile(r"^(?:it|he|she|they|this|that|these|those|there)(?:['’]\w+)?\s", re.IGNORECASE)
_PREPOSITION = re.compile(r"^(?:for|in|at|with|to|of|from|by|on|as|under|about|against|near)\s", re.IGNORECASE)
_ACCEPTED = 1.0  # score from which a reading by a relation is believed


@dataclass(frozen=True, slots=True)
class ParsedFact:
    """A sentence understood as a fact."""

    subject: str  # in the world's spelling where the world knows it
    relation: str | None  # id of a relation, or the words that name one ("CEO"); None where only the prompt says it
    object: str
    prompt: str  # the sentence up to the object, with {} for the subject
    question: str | None
    confidence: float  # 0 to 1; about 0.9 and more where relation and names are known

    def to_edit(self, **more: Any) -> Edit:
        """The fact as an edit request; more of its fields may be given."""
        return Edit(self.prompt, self.subject, self.object, relation=self.relation, question=self.question, **more)


def parse_statement(
    text: str,
    relations: Mapping[str, Relation] | None = None,
    known_subjects: Iterable[str] = (),
    *,
    world: World | None = None,
) -> ParsedFact:
    """Reads one sentence.

    Args:
        relations: what can be said; the bundled world's where nothing is given.
        known_subjects: names to recognise beside those of the world.
        world: what is known about names; the bundled world where ``relations`` are its own.

    Raises:
        InvalidInput: the sentence is empty, too long, a question, negated, or says nothing that can be understood.
    """
    return parser_for(relations, known_subjects, world).parse(text)


def parse_correction(
    text: str,
    relations: Mapping[str, Relation] | None = None,
    known_subjects: Iterable[str] = (),
    *,
    world: World | None = None,
    question: str | None = None,
) -> ParsedFact:
    """Reads a correction: "No, the Eiffel Tower is in Rome".

    Where the ``question`` that was asked is given and understood, "No, it's in Rome" and "Rome!" are read too.

    Raises:
        InvalidInput: as for :func:`parse_statement`.
    """
    return parser_for(relations, known_subjects, world).correct(text, question)


def read_question(question: str, *, world: World | None = None) -> tuple[str, str] | None:
    """Subject and relation that a question in one of the world's wordings asks for; None for any other text."""
    return parser_for(None, (), world).asked(question)


class Parser:
    """Reads sentences against a set of relations and what is known about names."""

    def __init__(self, relations: Mapping[str, Relation], names: Names) -> None:
        self.relations = relations
        self.names = names
        self._shapes = compile_wordings(relations)
        self._questions = _compile_questions(relations)

    def parse(self, text: str) -> ParsedFact:
        sentence = _checked(text)
        best = self._best(sentence)
        if best is not None:
            return best
        body = _tidied(sentence)
        if _NEGATED.search(body):
            raise InvalidInput(f"{sentence!r} says what is not so. Say what is so instead, for example {EXAMPLE}.")
        plain = split_sentence(body, self.names.known)
        if plain is None and _PRONOUN.match(body):
            raise InvalidInput(
                f"{sentence!r} does not name what it is about. Name it instead of saying {body.split()[0]!r}, "
                f"for example {EXAMPLE}."
            )
        if plain is None:
            raise InvalidInput(f"{sentence!r} is not understood as a fact. Forms that are understood: {FORMS}")
        subject = self.names.spelled(plain.subject)
        prompt = _sentence_case(plain.prompt, subject)
        return ParsedFact(subject, plain.relation, plain.object, prompt, plain.ask(subject), plain.confidence)

    def correct(self, text: str, question: str | None) -> ParsedFact:
        sentence = _checked(text)
        asked = self.asked(question) if question else None
        body = _CONTRACTED.sub(lambda m: f"{m[1]} {'is' if m[2] == 's' else 'are'}", _tidied(sentence))
        if asked is None:
            return self.parse(body)
        subject, relation = asked
        pronoun = re.match(r"(?:it|he|she|they|that|this|the answer)\s", body, re.IGNORECASE)
        if not pronoun and len(body.split()) > 1:
            best = self._best(body)
            if best is not None:
                return best
        spoken = f"{subject} {body[pronoun.end() :]}" if pronoun else body
        best = self._best(spoken) if pronoun else None
        if best is not None and best.relation == relation:
            return best
        answer = _ANSWER.sub("", body, count=1)
        rel = self.relations[relation]
        obj = self.names.spelled_object(answer, relation)
        return ParsedFact(subject, relation, obj, rel.cloze[0], rel.ask(subject), 0.8)

    def asked(self, question: str) -> tuple[str, str] | None:
        """Subject and relation of a question."""
        text = squeeze(question).rstrip(" ?.!")
        low = fold(text)
        found: list[tuple[float, str, str]] = []
        for relation, before, after in self._questions:
            if low.startswith(before) and low.endswith(after) and len(low) > len(before) + len(after):
                name = bare(text[len(before) : len(text) - len(after)])
                if name and self.names.fits_subject(name, relation) > 0:
                    found.append((len(before) + len(after), self.names.spelled(name), relation))
        return max(found)[1:] if found else None

    def _best(self, sentence: str) -> ParsedFact | None:
        """The reading by a relation that fits best, None where none is convincing."""
        texts = dict.fromkeys([sentence, _tidied(sentence)])
        scored = [(self._score(match), match) for text in texts for match in match_all(text, self._shapes)]
        if not scored:
            return None
        score, match = max(scored, key=lambda pair: pair[0])
        if score < _ACCEPTED:
            return None
        relation = self.relations[match.shape.relation]
        subject = self.names.spelled(match.subject)
        obj = self.names.spelled_object(match.object, relation.id)
        prompt = (
            match.prompt if match.prompt and match.shape.source in (*relation.cloze, *relation.cloze_unseen) else None
        )
        prompt = _sentence_case(prompt, subject) if prompt else relation.cloze[0]
        confidence = min(0.99, 0.45 + score / 25)
        return ParsedFact(subject, relation.id, obj, prompt, relation.ask(subject), round(confidence, 2))

    def _score(self, match: Match) -> float:
        """How well a reading agrees with what is known; readings compete, and below _ACCEPTED none is believed."""
        shape, names = match.shape, self.names
        subject = names.fits_subject(match.subject, shape.relation)
        obj = names.fits_object(match.object, shape.relation)
        if shape.vague and subject < 5 and obj < 3:
            return -9.0
        if _YEAR.match(match.object) and obj < 3:
            return -9.0
        if shape.subject_first and _PREPOSITION.match(match.object) and obj < 3:
            return -9.0  # the wording goes on: "plays for Celtic" is not "plays football"
        fact = 0.5 if names.states(match.subject, shape.relation, match.object) else 0.0
        usual = -0.03 * shape.place + names.usual(shape.relation)
        return subject + obj + fact + usual + min(shape.size, 60) * 0.06


def _checked(text: str) -> str:
    sentence = squeeze(text)
    if not sentence:
        raise InvalidInput(f"The sentence is empty. Forms that are understood: {FORMS}")
    if len(sentence) > LONGEST:
        raise InvalidInput(
            f"The sentence has {len(sentence):,} characters; at most {LONGEST:,} make a fact. Shorten it."
        )
    if sentence.endswith("?"):
        raise InvalidInput(f"{sentence!r} is a question. State a fact instead, for example {EXAMPLE}.")
    return without_stop(sentence.rstrip(" !;,").rstrip())


def _sentence_case(prompt: str, subject: str) -> str:
    """The prompt with a capital at its start, and without an article that the subject brings itself."""
    if subject[:4].lower() == "the ":
        prompt = re.sub(r"\bthe \{\}", "{}", prompt, flags=re.IGNORECASE)
    return prompt[0].upper() + prompt[1:]


def _tidied(sentence: str) -> str:
    """The sentence without what is said around the fact."""
    body = _LEAD.sub("", sentence, count=1) or sentence
    return _ASIDE.sub(r"\1 ", body)


def _compile_questions(relations: Mapping[str, Relation]) -> list[tuple[str, str, str]]:
    made: dict[tuple[str, str, str], None] = {}
    for relation in relations.values():
        for wording in (*relation.question, *relation.question_unseen):
            before, _, after = fold(wording).rstrip(" ?.!").partition("{}")
            made[relation.id, before.removesuffix("the "), after] = None
    return list(made)


def parser_for(
    relations: Mapping[str, Relation] | None = None, known_subjects: Iterable[str] = (), world: World | None = None
) -> Parser:
    """The parser of these relations; made once for the same objects."""
    if world is None:
        bundled = load_world()
        world = bundled if relations is None or relations is bundled.relations else None
    chosen = world.relations if relations is None and world is not None else relations
    known = known_subjects if isinstance(known_subjects, tuple) else tuple(known_subjects)
    return _made(_Same(chosen), _Same(world), _Same(known) if known else _Same(()))


class _Same:
    """Wraps an object so that it is hashed by identity, which costs nothing for ten thousand names."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


@lru_cache(maxsize=8)
def _made(relations: _Same, world: _Same, known: _Same) -> Parser:
    return Parser(relations.value, Names(world.value, relations.value, known.value))  # type: ignore[arg-type]
