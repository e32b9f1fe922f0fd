"""The wordings of all relations, compiled so that a sentence is compared with thousands of them in under a millisecond.

    shapes = compile_wordings(world.relations)
    for match in match_all("The Eiffel Tower is located in Rome", shapes):
        match.shape.relation, match.subject, match.object

A wording is two holes between three pieces of literal text, so no regular expression is needed: both ends are compared
and the middle piece is searched for. What people vary without meaning anything else by it is tolerated: case, the kind
of apostrophe, a leading article of a name, and the tense of "to be".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from knowledge.relations import Relation


def word_set(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


# Ways of saying a relation that are too loose to be trained or measured on, but that people type.
_COLLOQUIAL: Mapping[str, tuple[str, ...]] = {
    "occupation": (
        "{} is a",
        "{} is an",
        "{} works as a",
        "{} works as an",
        "{} is by profession a",
        "{s} is {o} by profession.",
    ),
    "citizenship": ("{} is a citizen of", "{} holds a passport of"),
    "author": ("{o} wrote {s}.", "{} was written by"),
    "director": ("{o} directed {s}.", "{} was directed by"),
    "artist": ("{o} painted {s}.", "{} was painted by"),
    "composer": ("{o} composed {s}.", "{} was composed by"),
    "performer": ("{o} sang {s}.", "{} is sung by"),
    "inventor": ("{o} invented {s}.",),
    "discoverer": ("{o} discovered {s}.",),
    "designer": ("{o} designed {s}.",),
    "creator": ("{o} created {s}.", "{} was created by"),
    "founded_by": ("{o} founded {s}.",),
    "manufacturer": ("{o} makes {s}.",),
    "university": ("{} went to", "{} attended"),
    "instrument": ("{} plays the",),
    "sport": ("{} plays",),
    "headquarters": ("{} is based in", "{} has its headquarters in"),
    "mountain_country": ("{} is in", "{} is situated in"),
    "island_country": ("{} is in", "{} is located in", "{} lies in"),
    "university_city": ("{} is in",),
    "held_in": ("{} is in", "{} is located in", "{} hangs in", "{} can be seen in"),
    "airline_country": ("{} is based in", "{} comes from"),
    "formed_in": ("{} comes from", "{} is from"),
    "birthplace": ("{} comes from", "{} is from"),
    "chemical_symbol": ("The symbol of {} is", "{o} is the symbol of {s}."),
    "atomic_number": ("{} has atomic number", "{} has the atomic number"),
}
# Words that say nothing about which relation is meant; a wording made of them alone needs a name that is known.
_VAGUE = word_set(
    "a an and as at be belongs belong by called comes come for found from had has have in into is it its known lies "
    "made makes named of on one part plays s she he stands that the their they to use uses used was were went are "
    "where which who with you home work works worked held did does being become became appears been other than can"
)
_BE = re.compile(r"(?<![\w'])(is|was|are|were)(?![\w'])")
_ARTICLE_END = re.compile(r"(?:^|\s)the$")


@dataclass(frozen=True, slots=True)
class Shape:
    """One wording: ``before`` hole ``between`` hole ``after``, in lower case, articles at the holes left out."""

    relation: str
    source: str  # as it stands in the relation
    subject_first: bool
    before: str
    between: str
    after: str
    place: int  # position among the relation's wordings; earlier ones are more usual
    size: int  # letters of literal text
    vague: bool


@dataclass(frozen=True, slots=True)
class Match:
    """A sentence read by a shape; the names as typed, without leading articles."""

    shape: Shape
    subject: str
    object: str
    prompt: str | None  # what was typed before the object, with {} for the subject; None when the object comes first


def fold(text: str) -> str:
    """Lower case and plain apostrophes, every character staying in its place."""
    low = text.lower()
    if len(low) != len(text):  # a few letters grow when lowered
        low = "".join(char.lower() if len(char.lower()) == 1 else char for char in text)
    return low.replace("’", "'").replace("‘", "'").replace("`", "'")


def compile_wordings(relations: Mapping[str, Relation]) -> tuple[Shape, ...]:
    """Every wording of every relation, in each tense of "to be"."""
    shapes: dict[tuple[str, bool, str, str, str], Shape] = {}
    for relation in relations.values():
        colloquial = _COLLOQUIAL.get(relation.id, ())
        clozes = [*relation.cloze, *relation.cloze_unseen, *(w for w in colloquial if "{}" in w)]
        stated = [*relation.statement, *(w for w in colloquial if "{o}" in w)]
        for place, wording in enumerate(clozes):
            before, _, between = wording.partition("{}")
            _add(shapes, relation, wording, True, (before, between, ""), place)
        for place, wording in enumerate(stated):
            first = wording.index("{s}") < wording.index("{o}")
            before, between, after = re.split(r"\{[so]\}", wording)
            _add(shapes, relation, wording, first, (before, between, after), place)
    return tuple(shapes.values())


def _add(
    shapes: dict[tuple[str, bool, str, str, str], Shape],
    relation: Relation,
    wording: str,
    subject_first: bool,
    pieces: tuple[str, str, str],
    place: int,
) -> None:
    before, between, after = (fold(piece) for piece in pieces)
    before = _ARTICLE_END.sub("", before.strip().removeprefix("the ")).strip()
    before = "" if before == "the" else before
    between = _ARTICLE_END.sub("", between.rstrip()).rstrip()
    after = after.rstrip(" .")
    words = re.findall(r"[^\W\d_]+", f"{before} {between} {after}")
    for form in _tenses(between):
        key = (relation.id, subject_first, before, form, after)
        size = len(before) + len(form) + len(after)
        shapes.setdefault(
            key,
            Shape(
                relation.id, wording, subject_first, before, form, after, place, size, all(w in _VAGUE for w in words)
            ),
        )


def _tenses(literal: str) -> list[str]:
    """The literal as it stands first, then with its first form of "to be" changed."""
    found = _BE.search(literal)
    if not found:
        return [literal]
    verbs = dict.fromkeys([found[1], "is", "was", "are", "were"])
    return [f"{literal[: found.start()]}{verb}{literal[found.end() :]}" for verb in verbs]


def match_all(text: str, shapes: Iterable[Shape]) -> Iterator[Match]:
    """Every way in which the shapes read the text, which has no final punctuation."""
    low = fold(text)
    offset = 4 if low.startswith("the ") else 0
    body = low[offset:]
    for shape in shapes:
        if not body.startswith(shape.before) or shape.between not in body or not body.endswith(shape.after):
            continue
        start, end = offset + len(shape.before), len(low) - len(shape.after)
        if shape.before and low[start : start + 1] != " ":
            continue
        yield from _split(text, low, shape, start, end)


def _split(text: str, low: str, shape: Shape, start: int, end: int) -> Iterator[Match]:
    """The places of the middle piece; a name may itself contain it, so there can be several."""
    middle = shape.between
    at = low.find(middle, start + 1, end)
    while at >= 0:
        stop = at + len(middle)
        boundary = low[stop : stop + 1]
        if boundary == " " or not boundary or (middle and middle[-1] in "\"'(" and not shape.after):
            first, second = bare(text[start:at]), bare(text[stop:end])
            if first and second:
                subject, obj = (first, second) if shape.subject_first else (second, first)
                yield Match(shape, subject, obj, _prompt(text, start, at, stop, end, shape))
        at = low.find(middle, at + 1, end)


def _prompt(text: str, start: int, at: int, stop: int, end: int, shape: Shape) -> str | None:
    if not shape.subject_first or shape.after:
        return None
    name = bare(text[start:at])
    head = text[: text.index(name, start)]
    tail = text[stop:end]
    article = tail[: len(tail) - len(bare(tail))].rstrip()
    return f"{head}{{}}{text[at:stop]}{article}"


_ARTICLE = re.compile(r"^\s*(?:the\s+)?")


def bare(name: str) -> str:
    """A name without white space around it, a leading "the" and quotation marks; a capital "The" belongs to it."""
    stripped = _ARTICLE.sub("", name, count=1).strip()
    if len(stripped) > 2 and stripped[0] in "\"“'‘" and stripped[-1] in "\"”'’":
        stripped = stripped[1:-1].strip()
    return stripped
