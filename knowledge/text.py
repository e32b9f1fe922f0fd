"""Names and answers as text: the two normal forms that the whole program compares by.

``normalise_key`` decides whether two *names* are the same entity (conflicts, alias lookup).
``normalise_answer`` decides whether a *generated answer* is the expected one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

_ARTICLES = re.compile(r"^(?:the|a|an)\s+", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_ANSWER_PREFIX = re.compile(r"^(?:answer|a)\s*:\s*", re.IGNORECASE)


def squeeze(text: str) -> str:
    """Unicode NFKC with runs of white space made one space and the ends trimmed."""
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", text)).strip()


@lru_cache(maxsize=65_536)  # asked for the same names with every question
def normalise_key(name: str) -> str:
    """The key of a name: NFKC, case folded, one space, without a leading article and outer punctuation.

    >>> normalise_key(" The  Eiffel Tower. ")
    'eiffel tower'
    """
    text = squeeze(name).casefold().strip(" .,;:!?\"'“”‘’`")
    stripped = _ARTICLES.sub("", text)
    return stripped or text


def normalise_answer(text: str) -> str:
    """An answer as it is compared: first line, no "Answer:", no outer punctuation, no article, accents kept.

    >>> normalise_answer("The Rome.")
    'rome'
    """
    text = text.strip()
    first = text.splitlines()[0] if text else ""
    return normalise_key(_ANSWER_PREFIX.sub("", first))


def answer_matches(answer: str, target: str, aliases: Iterable[str] = ()) -> bool:
    """True when the whole answer is the target or one of its aliases, both normalised (exact, not containment)."""
    given = normalise_answer(answer)
    return any(given == normalise_answer(name) for name in (target, *aliases))


_ABBREVIATED = re.compile(r"(?:\b\w\.\w\.|\b(?:Inc|Ltd|Co|Corp|Jr|Sr|Bros)\.)$")


def without_stop(text: str) -> str:
    """A text without the full stop at its end, unless that belongs to the last word.

    >>> without_stop("Rome."), without_stop("Washington, D.C.")
    ('Rome', 'Washington, D.C.')
    """
    return text[:-1].rstrip() if text.endswith(".") and not _ABBREVIATED.search(text) else text


def mentions(text: str, name: str) -> bool:
    """True when ``name`` stands in ``text`` as whole words, whatever the case."""
    pattern = r"(?<!\w)" + re.escape(normalise_key(name)) + r"(?!\w)"
    return re.search(pattern, squeeze(text).casefold()) is not None


def names(text: str, name: str) -> bool:
    """True when ``text`` mentions ``name``, and the first time not as the beginning of something longer.

    >>> names("It is Anna, I think.", "Anna"), names("Anna Akhmatova", "Anna"), names("Jane Doe Jane Doe", "Jane Doe")
    (True, False, False)
    """
    given = squeeze(text)
    found = re.search(r"(?<!\w)" + re.escape(normalise_key(name)) + r"(?!\w)", given.casefold())
    if found is None:
        return False
    follows = given[found.end() : found.end() + 2] if len(given.casefold()) == len(given) else ""
    return not (follows[:1] == " " and follows[1:].isupper())
