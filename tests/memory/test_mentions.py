from __future__ import annotations

import pytest

from memory.lexicon import Lexicon
from memory.mentions import locate, subject_keys

KNOWN = frozenset({"austria", "australia", "west virginia", "virginia", "baseball", "basketball"})


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("Where is the Eiffel Tower?", "Eiffel Tower", "the Eiffel Tower"),
        ("where is THE EIFFEL TOWER", "The Eiffel Tower", "THE EIFFEL TOWER"),
        ("What is France's capital?", "France", "France"),
        ("What is France’s capital?", "france", "France"),
        ('Who wrote "Hamlet"?', "Hamlet", "Hamlet"),
        ("Is Washington, D.C. large?", "Washington, D.C.", "Washington, D.C"),
        ("Where is the eifel tower?", "Eiffel Tower", "the eifel tower"),
        ("Where did Einstein live?", "Albert Einstein", "Einstein"),
        ("Where is Österreich?", "österreich", "Österreich"),
    ],
)
def test_a_name_is_found(text: str, name: str, found: str) -> None:
    span = locate(text, name)
    assert span is not None
    assert text[span.start : span.end] == found


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Where is Parisville?", "Paris"),  # inside another word
        ("Where is Austria?", "Australia"),
        ("Who founded West Virginia?", "Virginia"),  # a part of a longer known name
        ("Where was baseball invented?", "basketball"),
        ("Where is it?", "It Happened One Night"),
        ("Who is Mileva Einstein?", "Albert Einstein"),
        ("", "Paris"),
    ],
)
def test_another_name_is_not_taken_for_it(text: str, name: str) -> None:
    assert locate(text, name, known=KNOWN) is None


def test_a_longer_unknown_name_is_marked() -> None:
    span = locate("Which country is Paris Hilton from?", "Paris")
    assert span is not None
    assert span.extended
    plain = locate("Which country is Paris in?", "Paris")
    assert plain is not None
    assert not plain.extended


def test_a_typo_counts_for_less_than_the_name() -> None:
    exact, typo = locate("the Eiffel Tower", "Eiffel Tower"), locate("the Eifel Tower", "Eiffel Tower")
    assert exact is not None
    assert typo is not None
    assert exact.quality == 1 > typo.quality


def test_aliases_count_as_the_name() -> None:
    span = locate("What is the capital of the USA?", "United States", ("USA",))
    assert span is not None
    assert span.quality == 1


def test_subject_keys_resolve_aliases_of_the_world() -> None:
    keys = subject_keys("What's the capital of the USA?", Lexicon({}, {"USA": "United States"}))
    assert {"usa", "united states"} <= set(keys)
    assert "the" not in keys


def test_a_very_long_text_is_quick() -> None:
    assert locate("word " * 3000, "Eiffel Tower") is None
