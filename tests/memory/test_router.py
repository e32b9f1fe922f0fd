from __future__ import annotations

import pytest

from knowledge.errors import InvalidInput, UnknownName
from memory.gate import Gate
from memory.router import MODES, Router
from memory.strategies.base import Answer
from tests.memory.fakes import CopyingModel, FakeModel

IN, OUT = "Where is the Eiffel Tower?", "Where is Big Ben?"
EDITS = [{"id": 1, "method": "rome"}]
OVERLAY = object()


@pytest.fixture
def model() -> CopyingModel:
    return CopyingModel({"Eiffel Tower": "Paris", "Big Ben": "London"})


@pytest.fixture
def router(gate: Gate, model: CopyingModel) -> Router:
    gate.store.add("Eiffel Tower", "located_in", "Rome")
    return Router(model, gate, overlay_provider=lambda: OVERLAY, weight_edits_provider=lambda: EDITS)


@pytest.mark.parametrize(
    ("mode", "query", "text", "source", "strategy", "edited"),
    [
        ("auto", IN, "Rome", "memory", "ike", False),
        ("auto", OUT, "London", "model", "model", True),
        ("memory", IN, "Rome", "memory", "ike", False),
        ("memory", OUT, "London", "model", "model", False),
        ("weights", IN, "Paris", "model", "model", True),
        ("both", IN, "Rome", "memory", "ike", True),
        ("both", OUT, "London", "model", "model", True),
        ("base", IN, "Paris", "model", "model", False),
    ],
)
def test_modes(
    router: Router, model: CopyingModel, mode: str, query: str, text: str, source: str, strategy: str, edited: bool
) -> None:
    answer = router.answer(query, mode=mode)
    assert (answer.answer, answer.source, answer.strategy) == (text, source, strategy)
    assert list(answer.weight_edits) == (EDITS if edited else [])
    assert all((overlay is OVERLAY) == edited for overlay in model.overlays)


def test_the_memory_is_not_even_asked_where_the_mode_says_so(router: Router) -> None:
    for mode in ("base", "weights"):
        assert router.answer(IN, mode=mode).gate.reason.startswith("The memory was not asked")


def test_a_route_generates_nothing(router: Router, model: CopyingModel) -> None:
    route = router.route(IN)
    assert (route.strategy, route.verdict.in_scope, route.weights) == ("ike", True, False)
    assert route.reason
    assert model.prompts == []


def test_an_answer_says_which_way_was_chosen_and_why(router: Router) -> None:
    assert router.answer(IN).to_json()["route"] == {"strategy": "ike", "reason": "a stored fact is in scope"}
    assert router.answer(OUT).to_json()["route"] == {"strategy": "model", "reason": "no stored fact is in scope"}
    assert router.answer(IN, mode="base").to_json()["route"] == {"strategy": "model", "reason": "mode base"}
    asked = router.answer(OUT, strategy="ike")  # chosen, but nothing to use: both stand in the answer
    assert (asked.strategy, asked.route) == ("model", {"strategy": "ike", "reason": "chosen by the user"})


def test_a_strategy_asked_directly_has_no_route(router: Router) -> None:
    assert "route" not in router.strategy("ike").answer(IN).to_json()


def test_the_user_may_choose_the_strategy(router: Router) -> None:
    assert router.answer(IN, strategy="mello").strategy == "mello"
    assert router.answer(OUT, strategy="ike").strategy == "model"  # nothing in scope: it was the model's answer


def test_wrong_names_and_empty_questions_are_said(router: Router) -> None:
    with pytest.raises(UnknownName, match="strategy 'ikee'"):
        router.route(IN, strategy="ikee")
    with pytest.raises(UnknownName, match="mode 'autoo'"):
        router.route(IN, mode="autoo")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="empty"):
        router.answer("  \n")
    with pytest.raises(InvalidInput, match="characters"):
        router.answer("x" * 9000)


@pytest.mark.parametrize("mode", MODES)
def test_streams_end_with_the_answer(router: Router, mode: str) -> None:
    *pieces, answer = router.stream(IN, mode=mode)  # type: ignore[arg-type]
    assert isinstance(answer, Answer)
    assert "".join(str(piece) for piece in pieces).strip() == answer.answer
    assert answer.seconds > 0
    assert answer.model == "fake"


def test_undo_changes_the_next_answer(router: Router) -> None:
    assert router.answer(IN).answer == "Rome"
    router.gate.store.undo()
    assert router.answer(IN).answer == "Paris"


def test_a_chain_in_which_no_fact_has_a_part_leaves_the_models_own_answer(gate: Gate) -> None:
    gate.store.add("Eiffel Tower", "located_in", "Rome")

    def reply(text: str) -> str:
        if not text.startswith("Break this question"):
            return "nine"
        return "Final answer: forty" if "Subquestion: " in text else "Subquestion: Who manages the shop?"

    query = "What is the shoe size of the manager of the shop of Bob?"
    router = Router(FakeModel(reply), gate)
    answer = router.answer(query)
    assert answer.route is not None
    assert (answer.answer, answer.source, answer.strategy, answer.route["strategy"]) == (
        "nine",
        "model",
        "model",
        "mello",
    )
    assert router.answer(query, strategy="mello").answer == "forty"  # asked for by name it is shown
