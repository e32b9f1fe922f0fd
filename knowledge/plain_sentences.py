"""Splits sentences about relations that the world does not have, by their grammar.

    split_sentence("Acme's CEO is Jane Doe")    # subject Acme, relation CEO, object Jane Doe, prompt "{}'s CEO is"
    split_sentence("My dog is called Rex")      # subject My dog, no relation, object Rex, prompt "{} is called"

Four forms are tried, the most telling first: "the R of S is O", "S's R is O", "O is the R of S", and subject, verb,
object, where the object is the name at the end or what follows the last preposition.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from knowledge.relations import fill
from knowledge.wordings import word_set

_BE = r"(?:is|was|are|were)"
_IS = rf"(?:{_BE}|remains|became|{_BE} (?:called|named|known as))"
_NOUN = r"(?P<r>(?:[^\W\d_][\w&/-]*)(?: (?!is\b|was\b|are\b|were\b|of\b)[^\W\d_][\w&/-]*){0,5}?)"
_FORMS = (
    re.compile(rf"^(?P<the>[Tt]he )?{_NOUN} of (?P<art>the )?(?P<s>.+?) (?P<be>{_IS})(?: the)? (?P<o>\S.*)$"),
    re.compile(
        rf"^(?P<the>[Tt]he ){_NOUN} (?P<prep>for|at|in) (?P<art>the )?(?P<s>[A-Z].*?) (?P<be>{_IS})"
        r"(?: the)? (?P<o>[A-Z\d].*)$"
    ),
    re.compile(rf"^(?P<the>[Tt]he )?(?P<s>.+?)(?P<gen>['’]s?) {_NOUN} (?P<be>{_IS})(?: the)? (?P<o>\S.*)$"),
)
_REVERSED = (
    re.compile(rf"^(?P<o>.+?) {_BE} (?:now )?the {_NOUN} (?:of|for|at|in) (?:the )?(?P<s>\S.*)$"),
    re.compile(rf"^(?P<o>[A-Z].*?) {_BE} (?:now )?(?P<s>[A-Z].*?)['’]s? {_NOUN}$"),
)
_NEW = re.compile(r"^(?:new|current|present|latest|actual|real)\s+", re.IGNORECASE)
_PRONOUNS = word_set("it he she they this that these those there who what one here")
_ASKS = word_set(
    "where what who whom whose how why when which is are was were do does did can could will would should please tell "
    "give name say write show list explain describe hello hi thanks thank"
)
_VERBS = word_set(
    "is was are were am has have had can will must remains became becomes belongs lives lived works worked plays "
    "played likes loves hates owns uses wants needs speaks knows makes made won wrote met sold bought eats drinks "
    "drives live work play like love own use speak hate want need know said went goes comes came leads led runs "
    "ran teaches taught studies grew grows costs weighs opens opened closes closed starts started ends ended ate "
    "drank drove sits stands stood lies lay holds held contains begins began"
)
_PREPOSITIONS = word_set(
    "called named in at by from of to on with for as near under over into about against after before behind beside "
    "inside between since until than through within outside"
)
_JOINERS = word_set("of the and de la le von van der du del da di al & y")
_ROLE = re.compile(
    r"(?:er|or|ist|ian|ent|man|woman|ceo|cto|cfo|wife|husband|mother|father|brother|sister|son|daughter|friend|boss|king|queen|"
    r"pope|mayor|coach|chief|head|captain|chair|star|host|judge|pilot|monarch|emperor|spouse|partner|author|landlord)$",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class PlainFact:
    """A sentence split into its parts."""

    subject: str
    relation: str | None  # the noun that names it, as typed; None where a verb does
    object: str
    prompt: str
    question: str | None  # with {} for the subject
    confidence: float

    def ask(self, subject: str) -> str | None:
        first, space, rest = subject.partition(" ")
        name = first.lower() + space + rest if first in ("My", "Our", "Your", "His", "Her", "Their") else subject
        return None if self.question is None else fill(self.question, name)


def split_sentence(text: str, known: Callable[[str], bool] = lambda name: False) -> PlainFact | None:
    """The parts of a sentence without final punctuation, None where no form fits.

    Args:
        known: tells names that are known, so that "Gone with the Wind" is not cut at a preposition.
    """
    first = text.split(" ", 1)[0].casefold().rstrip(",")
    if first in _ASKS or first in _PRONOUNS or first.split("'")[0].split("’")[0] in _PRONOUNS:
        return None
    for form in _FORMS:
        if found := form.match(text):
            return _by_noun(found)
    reversed_ = next((found for form in _REVERSED if (found := form.match(text))), None)
    if reversed_ and (reversed_["o"][0].isupper() or known(reversed_["o"])) and not _has_verb(reversed_["o"]):
        noun = _NEW.sub("", reversed_["r"])
        subject, obj = reversed_["s"], _without_the(reversed_["o"])
        return PlainFact(subject, noun, obj, f"The {noun} of {{}} is", _noun_question(noun, obj), 0.55)
    return _by_verb(text, known)


def _by_noun(found: re.Match[str]) -> PlainFact:
    groups = found.groupdict()
    the, article, noun = groups["the"] or "", groups.get("art") or "", groups["r"]
    if groups.get("gen"):
        prompt = f"{the}{{}}{groups['gen']} {noun} {groups['be']}"
    else:
        prompt = f"{the}{noun} {groups.get('prep') or 'of'} {article}{{}} {groups['be']}"
    prompt = prompt[0].upper() + prompt[1:]
    plain = _NEW.sub("", noun)
    return PlainFact(groups["s"], plain, groups["o"], prompt, _noun_question(plain, groups["o"]), 0.7)


def _noun_question(noun: str, obj: str) -> str:
    who = obj[0].isupper() and _ROLE.search(noun) is not None
    return f"{'Who' if who else 'What'} is the {noun} of {{}}?"


def _by_verb(text: str, known: Callable[[str], bool]) -> PlainFact | None:
    """Subject, verb, object."""
    words = text.split(" ")
    verb = _verb_place(words, known)
    if verb is None or verb + 1 >= len(words):
        return None
    start = _object_place(words, verb)
    subject, middle, obj = " ".join(words[:verb]), words[verb:start], " ".join(words[start:])
    article = ""
    if subject[:4] in ("The ", "the ") and not known(subject):
        article, subject = subject[:4], subject[4:]
    if not subject or not obj:
        return None
    prompt = f"{article}{{}} {' '.join(middle)}"
    return PlainFact(subject, None, _without_the(obj), prompt, _verb_question(article, middle, obj), 0.5)


def _verb_place(words: list[str], known: Callable[[str], bool]) -> int | None:
    for end in range(min(len(words) - 1, 8), 0, -1):  # a known name is the subject, whatever words it has
        if known(" ".join(words[:end])) and words[end].islower():
            return end
    for at, word in enumerate(words[1:], start=1):
        if word in _VERBS:
            return at
    for at, word in enumerate(words[1:], start=1):  # no common verb: the first that looks like one, after a name
        if (
            word.islower()
            and re.fullmatch(r"[a-z]{2,}(?:s|ed)", word)
            and word not in _JOINERS
            and words[at - 1][0].isupper()
        ):
            return at
    return None


def _object_place(words: list[str], verb: int) -> int:
    """Where the object begins: the name or number at the end, else what follows the last preposition or the verb."""
    at = len(words)
    while at - 1 > verb and _name_like(words[at - 1]):
        at -= 1
        while at - 2 > verb and words[at - 1] in _JOINERS and _name_like(words[at - 2]):
            at -= 1
    while at < len(words) and words[at] in _JOINERS:
        at += 1
    if at < len(words):
        return at
    for place in range(len(words) - 2, verb, -1):
        if words[place] in _PREPOSITIONS:
            return place + 2 if words[place + 1] in ("the", "a", "an") and place + 2 < len(words) else place + 1
    place = verb + 1
    return place + 1 if words[place] in ("the", "a", "an") and place + 1 < len(words) else place


def _name_like(word: str) -> bool:
    return word in _JOINERS or word[0].isupper() or word[0].isdigit() or not word[0].isascii()


def _verb_question(article: str, middle: list[str], obj: str) -> str | None:
    """The question that the object answers, where English makes it easy."""
    name, verb, rest = f"{article.lower()}{{}}", middle[0], middle[1:]
    preposition = rest[-1] if rest else ""
    place = preposition in ("in", "at", "near", "inside") and obj[0].isupper()
    if verb in ("is", "was", "are", "were"):
        if preposition in ("called", "named") and len(rest) == 1:
            return f"What {verb} {name} {preposition}?"
        if preposition in ("in", "on", "at", "near", "by", "to", "from", "of", "with"):
            state = " ".join(rest[:-1])
            if re.search(r"\b(?:1\d|20)\d\d$", obj):
                return f"When {verb} {name} {state}?".replace(" ?", "?")
            if place:
                return f"Where {verb} {name} {state}?".replace(" ?", "?")
            who = preposition in ("by", "to", "with") and obj[0].isupper()
            return f"{'Who' if who else 'What'} {verb} {name} {' '.join(rest)}?"
        return f"What {verb} {name}?" if not rest or rest[-1] in ("the", "a", "an") else None
    base = _base_form(verb)
    if base is None:
        return None
    if place and len(rest) == 1:
        return f"Where does {name} {base}?"
    tail = " ".join(rest if not rest or rest[-1] not in ("the", "a", "an") else rest[:-1])
    who = obj[0].isupper() and preposition in ("to", "with")
    return f"{'Who' if who else 'What'} does {name} {base} {tail}?".replace(" ?", "?")


def _base_form(verb: str) -> str | None:
    """The infinitive of a third person: "belongs" to "belong"."""
    if verb in ("has", "goes", "does"):
        return {"has": "have", "goes": "go", "does": "do"}[verb]
    if verb.endswith("ies") and len(verb) > 4:
        return verb[:-3] + "y"
    if verb.endswith(("ches", "shes", "sses", "xes")):
        return verb[:-2]
    return verb[:-1] if verb.endswith("s") and not verb.endswith("ss") else None


def _has_verb(text: str) -> bool:
    return any(word in ("is", "was", "are", "were", "has", "had") for word in text.split(" "))


def _without_the(name: str) -> str:
    return name[4:] if name.startswith("the ") and len(name) > 4 else name
