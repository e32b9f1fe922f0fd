"""MemPrompt: what a user meant, in words, is kept and helps the next question that asks the same."""

from __future__ import annotations

import pytest

from knowledge.errors import InvalidInput
from memory.corrections import Corrections, corrects
from memory.errors import FactNotFound, NothingToUndo
from memory.gate import Gate
from memory.router import Router
from memory.strategies.memprompt import MemPrompt
from tests.memory.conftest import MakeStore
from tests.memory.fakes import FakeModel, chat, words_of

ASKED = "What is the capital of Georgia?"
MEANT = "No, I meant the state, not the country."


@pytest.fixture
def corrections(gate: Gate) -> Corrections:
    return Corrections(gate)


def test_a_correction_helps_the_next_question_that_asks_the_same(corrections: Corrections) -> None:
    corrections.add(ASKED, MEANT)
    for question in (ASKED, "Which city is the capital of Georgia?", "what's georgia's capital city?"):
        found = corrections.find(question)
        assert found is not None, question
        assert found.text == "I meant the state, not the country."
        assert found.question == ASKED


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",  # another subject
        "What is the currency of Georgia?",  # another relation
        "How are you?",
        "",
    ],
)
def test_it_leaves_other_questions_alone(corrections: Corrections, question: str) -> None:
    corrections.add(ASKED, MEANT)
    assert corrections.find(question) is None


def test_questions_without_a_name_go_by_their_meaning(corrections: Corrections) -> None:
    corrections.add("what is a word like happy?", "I meant a word that rhymes.")
    found = corrections.find("what's a word like happy")
    assert found is not None
    assert 0.5 <= found.score <= 1
    assert corrections.find("how tall is a giraffe?") is None


def test_the_newest_of_several_counts_and_can_be_taken_back(corrections: Corrections) -> None:
    corrections.add(ASKED, MEANT)
    second = corrections.add(ASKED, "I meant the country.")
    found = corrections.find(ASKED)
    assert found is not None
    assert found.id == second.id
    corrections.undo()
    found = corrections.find(ASKED)
    assert found is not None
    assert found.text.startswith("I meant the state")
    corrections.restore(second.id)
    assert corrections.find(ASKED) is not None
    assert [one.active for one in corrections.list(all_=True)] == [True, True]
    corrections.remove(second.id)
    with pytest.raises(NothingToUndo, match="already taken back"):
        corrections.remove(second.id)
    assert [one.id for one in corrections.list(all_=True) if not one.active] == [second.id]
    corrections.undo()
    with pytest.raises(NothingToUndo, match="no correction"):
        corrections.undo()
    assert corrections.find(ASKED) is None


def test_namespaces_keep_theirs_and_all_read_the_shared_one(corrections: Corrections) -> None:
    corrections.add(ASKED, MEANT, namespace="ann")
    assert corrections.find(ASKED) is None
    assert corrections.find(ASKED, namespace="ann") is not None
    corrections.add(ASKED, "I meant the country.", namespace="shared")
    assert corrections.find(ASKED) is not None


def test_it_survives_a_restart(corrections: Corrections, make_store: MakeStore, gate: Gate) -> None:
    corrections.add(ASKED, MEANT)
    gate.store.close()
    again = make_store(embedder=gate.store.embedder, lexicon=gate.store.lexicon)
    assert Corrections(Gate(again, gate.head)).find(ASKED) is not None


@pytest.mark.parametrize(("question", "text"), [("", "x"), ("x", "  "), ("x", "y" * 2000)])
def test_empty_and_endless_ones_are_refused(corrections: Corrections, question: str, text: str) -> None:
    with pytest.raises(InvalidInput):
        corrections.add(question, text)
    with pytest.raises(FactNotFound):
        corrections.get(1)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("No, I meant the river.", True),
        ("I mean the one in Texas", True),
        ("Wrong. It is Lyon.", True),
        ("sorry, that's not what I asked", True),
        ("No idea. What is it?", False),
        ("It is raining today", False),
        ("Is it Lyon?", False),
    ],
)
def test_tells_a_correction_from_other_messages(message: str, expected: bool) -> None:
    assert corrects(message) is expected


def test_the_prompt_has_the_question_and_then_the_clarification(gate: Gate) -> None:
    model = FakeModel(lambda text: "Atlanta")
    strategy = MemPrompt(model, gate)
    strategy.correct(ASKED, MEANT)
    answer = strategy.answer("Which city is the capital of Georgia?", chat("Hi", "Hello"))
    assert words_of(model.prompts[0]).endswith(
        "Which city is the capital of Georgia?\nClarification: I meant the state, not the country."
    )
    assert (answer.answer, answer.source, answer.strategy) == ("Atlanta", "memory", "memprompt")
    assert answer.steps[0]["given for"] == ASKED


def test_long_histories_are_cut(gate: Gate) -> None:
    model = FakeModel(context=160)
    strategy = MemPrompt(model, gate)
    strategy.correct(ASKED, MEANT)
    strategy.answer(ASKED, chat(*["earlier words " * 20, "an answer"] * 6))
    assert model.count_tokens(model.prompts[0]) <= 160 - 64
    assert "Clarification" in words_of(model.prompts[0])


def test_the_router_takes_it_by_itself_and_says_so(gate: Gate) -> None:
    router = Router(FakeModel(lambda text: "Atlanta"), gate)
    assert router.route(ASKED).strategy == "model"
    strategy = router.strategy("memprompt")
    assert isinstance(strategy, MemPrompt)
    strategy.correct(ASKED, MEANT)
    route = router.route(ASKED)
    assert (route.strategy, route.reason) == ("memprompt", "the user has corrected a question like this one")
    assert router.route(ASKED, mode="base").strategy == "model"
    gate.store.add("Georgia", "capital", "Batumi")  # a fact stated since then is the user's last word
    assert router.route(ASKED).strategy == "ike"
