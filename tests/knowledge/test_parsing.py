"""Sentences become facts: every wording of every relation, the world's names and strangers', and clear refusals."""

from __future__ import annotations

import random
import string
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knowledge.errors import InvalidInput
from knowledge.parsing import parse_correction, parse_statement, read_question
from knowledge.relations import Relation, fill
from knowledge.text import normalise_key
from knowledge.world import load_world

WORLD = load_world()
SAMPLE = 1500


def say(wording: str, subject: str, obj: str) -> str:
    if "{}" in wording:
        return f"{fill(wording, subject)} {obj}."
    text = wording.replace("{s}", subject).replace("{o}", obj)
    return text[0].upper() + text[1:]


def wordings(relation: Relation) -> tuple[str, ...]:
    return (*relation.cloze, *relation.cloze_unseen, *relation.statement)


def read(text: str) -> tuple[str, str | None, str]:
    fact = parse_statement(text, WORLD.relations)
    return fact.subject, fact.relation, fact.object


@pytest.mark.parametrize("kind", ["true", "counterfactual"])
def test_a_fact_of_the_world_stated_in_any_wording_comes_back(kind: str) -> None:
    rng = random.Random(1)
    missed = []
    for _ in range(SAMPLE):
        fact = rng.choice(WORLD.facts)
        relation = WORLD.relations[fact.relation]
        obj = fact.object if kind == "true" else rng.choice(WORLD.objects_of_relation[relation.id])
        text = say(rng.choice(wordings(relation)), fact.subject, obj)
        try:
            got = read(text)
        except InvalidInput as error:
            got = ("", None, str(error))
        if got != (fact.subject, fact.relation, obj):
            missed.append((text, got))
    assert len(missed) <= 0.005 * SAMPLE, missed[:10]


def test_every_wording_is_understood_for_some_fact_of_its_relation() -> None:
    """None of the wordings is always taken for another relation."""
    rng = random.Random(2)
    lost = []
    for relation in WORLD.relations.values():
        facts = WORLD.by_relation[relation.id]
        for wording in wordings(relation):
            tried = [rng.choice(facts) for _ in range(2)]
            if not any(read(say(wording, f.subject, f.object)) == (f.subject, relation.id, f.object) for f in tried):
                lost.append((relation.id, wording))
    assert not lost


NAMES = st.text(string.ascii_letters, min_size=3, max_size=12).map(str.capitalize)


@settings(max_examples=60)
@given(name=st.tuples(NAMES, NAMES).map(" ".join), data=st.data())
def test_strangers_are_read_too_in_wordings_that_name_their_relation(name: str, data: st.DataObject) -> None:
    relation = WORLD.relations[data.draw(st.sampled_from(["capital", "currency", "inventor", "birthplace"]))]
    obj = data.draw(st.sampled_from(WORLD.objects_of_relation[relation.id]))
    if WORLD.canonical(name) is not None:
        return
    fact = parse_statement(relation.state(name, obj), WORLD.relations)
    # of "The Aaa was invented by" nobody can say whose the article is
    assert (fact.subject, fact.object) in ((name, obj), (name.removeprefix("The "), obj))
    assert fact.relation in (relation.id, "state_capital")
    assert 0 < fact.confidence < 0.95


@settings(max_examples=100)
@given(st.text(max_size=80))
def test_any_text_gives_a_fact_or_a_refusal_in_words(text: str) -> None:
    try:
        fact = parse_statement(text)
    except InvalidInput:
        return
    assert fact.subject
    assert fact.object
    assert fact.prompt.count("{}") == 1
    assert 0 < fact.confidence <= 1


@settings(max_examples=40)
@given(fact=st.sampled_from(WORLD.facts), data=st.data())
def test_case_period_article_and_tense_do_not_matter(fact, data: st.DataObject) -> None:
    relation = WORLD.relations[fact.relation]
    text = relation.state(fact.subject, fact.object)
    changed = data.draw(
        st.sampled_from(
            [
                text.removesuffix("."),
                text + " ",
                text.replace(".", "!"),
                text.replace(" is ", " was ", 1),
                text.replace(" was ", " is ", 1),
                text.replace(" is ", " is now ", 1),
                f"Actually, {text[0].lower() if text.startswith('The ') else text[0]}{text[1:]}",
                f"No, {text}",
                text.lower(),
            ]
        )
    )
    got = parse_statement(changed)
    keys = (normalise_key(got.subject), got.relation, normalise_key(got.object))
    assert keys == (normalise_key(fact.subject), fact.relation, normalise_key(fact.object)), changed


@pytest.mark.parametrize(
    ("text", "subject", "relation", "obj"),
    [
        ("The Eiffel Tower is located in Rome.", "Eiffel Tower", "located_in", "Rome"),
        ("the eiffel tower is in rome", "Eiffel Tower", "located_in", "Rome"),
        ("Rome is home to the Eiffel Tower.", "Eiffel Tower", "located_in", "Rome"),
        ("The Eiffel Tower stands in the city of Rome", "Eiffel Tower", "located_in", "Rome"),
        ("Lyon is the capital of France", "France", "capital", "Lyon"),
        ("France's capital is Lyon", "France", "capital", "Lyon"),
        ("France’s capital is now Lyon", "France", "capital", "Lyon"),
        ("The capital of the USA is New York City", "United States", "capital", "New York City"),
        ("The currency of Japan is the euro", "Japan", "currency", "euro"),
        ("Albert Einstein was a painter", "Albert Einstein", "occupation", "painter"),
        ("Christopher Marlowe wrote Hamlet", "Hamlet", "author", "Christopher Marlowe"),
        ("Mount Everest is in Brazil", "Mount Everest", "mountain_country", "Brazil"),
        ("Washington, D.C. is a city in Canada.", "Washington, D.C.", "country", "Canada"),
        ("Zorblax University is located in Berlin", "Zorblax University", "university_city", "Berlin"),
        ("The Zorblax Tower is in Berlin", "Zorblax Tower", "located_in", "Berlin"),
        ("In Brazil, people speak Spanish", "Brazil", "official_language", "Spanish"),
        ("Lionel Messi plays tennis.", "Lionel Messi", "sport", "tennis"),
    ],
)
def test_sentences_about_the_world(text: str, subject: str, relation: str, obj: str) -> None:
    assert read(text) == (subject, relation, obj)


@pytest.mark.parametrize(
    ("text", "subject", "relation", "obj", "prompt", "question"),
    [
        ("The CEO of Acme is Jane Doe.", "Acme", "CEO", "Jane Doe", "The CEO of {} is", "Who is the CEO of Acme?"),
        ("Acme's CEO is Jane", "Acme", "CEO", "Jane", "{}'s CEO is", "Who is the CEO of Acme?"),
        ("Jane Doe is the CEO of Acme.", "Acme", "CEO", "Jane Doe", "The CEO of {} is", "Who is the CEO of Acme?"),
        ("My dog is called Rex", "My dog", None, "Rex", "{} is called", "What is my dog called?"),
        ("Rex belongs to Anna.", "Rex", None, "Anna", "{} belongs to", "Who does Rex belong to?"),
        ("Alice works for the Bank of England", "Alice", None, "Bank of England", "{} works for the", None),
        ("Water boils at 90 degrees", "Water", None, "90 degrees", "{} boils at", "What does Water boil at?"),
        ("Bob's favourite colour is blue", "Bob", "favourite colour", "blue", "{}'s favourite colour is", None),
        ("Gone with the Wind was filmed in Arizona", "Gone with the Wind", None, "Arizona", "{} was filmed in", None),
        (
            "Einstein was born in 1879",
            "Albert Einstein",
            None,
            "1879",
            "{} was born in",
            "When was Albert Einstein born?",
        ),
    ],
)
def test_sentences_about_anything_else(
    text: str, subject: str, relation: str | None, obj: str, prompt: str, question: str | None
) -> None:
    fact = parse_statement(text)
    assert (fact.subject, fact.relation, fact.object, fact.prompt) == (subject, relation, obj, prompt)
    if question is not None:
        assert fact.question == question
    assert fact.confidence < 0.8


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("Where is the Eiffel Tower?", "question"),
        ("The Eiffel Tower is not in Paris", "what is not so"),
        ("It is in Rome", "does not name"),
        ("hello", "Forms that are understood"),
        ("Tell me a joke about Paris", "Forms that are understood"),
        ("word " * 400, "characters"),
    ],
)
def test_what_is_no_fact_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        parse_statement(text)


def test_the_prompt_is_the_users_own_wording_and_becomes_an_edit() -> None:
    edit = parse_statement("France's capital is Lyon.").to_edit(target_true="Paris")
    assert edit.statement == "France's capital is Lyon."
    assert (edit.relation, edit.question, edit.target_true) == ("capital", "What is the capital of France?", "Paris")


def test_known_subjects_that_the_world_does_not_have_are_recognised() -> None:
    with_it = parse_statement("Zorb of the Hill likes tea", known_subjects=("Zorb of the Hill",))
    assert with_it.subject == "Zorb of the Hill"


def test_hostile_text_stays_text() -> None:
    fact = parse_statement("<img src=x onerror=alert(1)> is located in Rome")
    assert fact.subject == "<img src=x onerror=alert(1)>"


def test_braces_in_a_name_do_not_break_the_prompt() -> None:
    for text in ("The CEO of {} is Jane Doe.", "The {} Tower is located in Rome", "My dog is called {}"):
        try:
            fact = parse_statement(text)
        except InvalidInput:
            continue
        assert fact.prompt.count("{}") == 1


@pytest.mark.parametrize(
    "text",
    ["No, it's in Rome.", "Rome", "No, Rome!", "It is located in Rome", "Actually it's Rome", "the answer is Rome",
     "No, the Eiffel Tower is in Rome.", "That's wrong, it stands in Rome"],
)  # fmt: skip
def test_a_correction_is_read_against_the_question(text: str) -> None:
    fact = parse_correction(text, question="Where's the Eiffel Tower?")
    assert (fact.subject, fact.relation, fact.object) == ("Eiffel Tower", "located_in", "Rome")


def test_a_correction_without_its_question_must_name_its_subject() -> None:
    assert parse_correction("No, the Eiffel Tower is in Rome").object == "Rome"
    with pytest.raises(InvalidInput):
        parse_correction("No, it's in Rome")


def test_questions_are_read() -> None:
    assert read_question("What is the capital of the USA?") == ("United States", "capital")
    assert read_question("How do you do?") is None


def test_reading_is_fast() -> None:
    parse_statement("The Eiffel Tower is located in Rome.")
    texts = [WORLD.relations[f.relation].state(f.subject, f.object) for f in random.Random(3).sample(WORLD.facts, 100)]
    start = time.process_time()
    for text in texts:
        parse_statement(text, WORLD.relations)
    assert (time.process_time() - start) / len(texts) < 0.01


def test_a_wording_that_goes_on_is_another_one() -> None:
    fact = parse_statement("Lionel Messi plays for Bayern Munich.")
    assert (fact.relation, fact.prompt, fact.object) == (None, "{} plays for", "Bayern Munich")
