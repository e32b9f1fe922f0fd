"""Every strategy of the registry against one table of duties; then what is particular to each."""

from __future__ import annotations

import threading

import pytest

from knowledge.errors import UnknownName
from memory.gate import Gate
from memory.registry import available, get_strategy
from memory.strategies.base import Answer, Plain
from memory.strategies.ike import IKE, IKEOptions, budget
from memory.strategies.mello import MeLLo
from tests.memory.fakes import CopyingModel, FakeModel, chat, words_of

NAMES = [entry.name for entry in available()]


@pytest.fixture
def filled(gate: Gate) -> Gate:
    gate.store.add("Eiffel Tower", "located_in", "Rome")
    gate.store.add("Rome", "country", "Japan")
    return gate


@pytest.mark.parametrize("name", NAMES)
class TestEvery:
    def test_says_what_it_is(self, name: str, filled: Gate) -> None:
        strategy = get_strategy(name, CopyingModel(), filled)
        entry = next(entry for entry in available() if entry.name == name)
        assert (strategy.name, strategy.title, strategy.paper) == (entry.name, entry.title, entry.paper)

    def test_uses_the_fact_in_scope(self, name: str, filled: Gate) -> None:
        answer = get_strategy(name, CopyingModel(), filled).answer("Where is the Eiffel Tower?")
        assert (answer.answer, answer.source, answer.strategy) == ("Rome", "memory", name)
        assert answer.hits[0].fact.object == "Rome"

    def test_leaves_other_questions_to_the_model(self, name: str, filled: Gate) -> None:
        answer = get_strategy(name, CopyingModel({"Big Ben": "London"}), filled).answer("Where is Big Ben?")
        assert (answer.answer, answer.source, answer.hits) == ("London", "model", ())

    def test_streams_text_and_then_the_answer(self, name: str, filled: Gate) -> None:
        items = list(get_strategy(name, CopyingModel(), filled).stream("Where is the Eiffel Tower?"))
        assert isinstance(items[-1], Answer)
        text = "".join(item for item in items[:-1] if isinstance(item, str))
        assert text.strip() == items[-1].answer

    def test_closing_the_stream_stops_the_model(self, name: str, filled: Gate) -> None:
        model = FakeModel(lambda text: "word " * 40)
        stream = get_strategy(name, model, filled).stream("Where is Big Ben?")
        next(stream)
        computed = model.pieces_computed
        stream.close()  # type: ignore[attr-defined]
        assert model.pieces_computed == computed

    def test_cancel_ends_it(self, name: str, filled: Gate) -> None:
        cancel = threading.Event()
        cancel.set()
        answer = get_strategy(name, FakeModel(), filled).answer("Where is Big Ben?", cancel=cancel)
        assert answer.answer == ""

    def test_the_overlay_reaches_the_model(self, name: str, filled: Gate) -> None:
        model, overlay = FakeModel(), object()
        get_strategy(name, model, filled).answer("Where is Big Ben?", overlay=overlay)
        assert model.overlays
        assert all(given is overlay for given in model.overlays)

    def test_prints_the_agreed_shape(self, name: str, filled: Gate) -> None:
        data = get_strategy(name, CopyingModel(), filled).answer("Where is the Eiffel Tower?").to_json()
        keys = ["answer", "source", "strategy", "hits", "gate", "steps", "weight_edits", "seconds"]
        assert list(data) == keys
        assert set(data["hits"][0]) == {"fact_id", "text", "score"}
        assert set(data["gate"]) == {"in_scope", "score", "threshold"}


def test_an_unknown_strategy_lists_the_known_ones(filled: Gate) -> None:
    with pytest.raises(UnknownName, match=r"Did you mean 'ike'\?"):
        get_strategy("ikee", FakeModel(), filled)


def test_the_plain_model_gets_the_conversation(filled: Gate) -> None:
    model = FakeModel()
    Plain(model, filled).answer("And now?", chat("Hi", "Hello"))
    assert [message["content"] for message in model.prompts[0]] == ["Hi", "Hello", "And now?"]  # type: ignore[index]


class TestIKE:
    def test_demonstrations_are_of_three_kinds_and_fit_the_context(self, filled: Gate) -> None:
        model = CopyingModel(context=2048)
        IKE(model, filled, IKEOptions(demonstrations=8)).answer("Where is the Eiffel Tower?")
        text = words_of(model.prompts[0])
        assert text.count("Answer: ") == 8
        assert text.rstrip().endswith("Question: Where is the Eiffel Tower?")
        assert text.split("\n\n")[-1].startswith("Question: Where is the Eiffel Tower?\nNew fact: ")
        assert "Eiffel" not in text.split("\n\n")[0]

    @pytest.mark.parametrize("context", [128, 200, 512, 2048])
    def test_the_prompt_never_outgrows_the_context(self, filled: Gate, context: int) -> None:
        model = CopyingModel(context=context)
        history = chat(*(["some earlier words " * 20, "an answer"] * 6))
        IKE(model, filled, IKEOptions(demonstrations=32)).answer("Where is the Eiffel Tower?", history)
        assert model.count_tokens(model.prompts[0]) <= context - 64
        assert "New fact: " in words_of(model.prompts[0])

    def test_ablations(self, filled: Gate) -> None:
        model = CopyingModel(context=2048)
        options = IKEOptions(demonstrations=6, retain=False, update=False)
        IKE(model, filled, options).answer("Where is the Eiffel Tower?")
        for block in words_of(model.prompts[0]).split("\n\n")[:-1]:
            _, fact, _, answer = (line.partition(": ")[2] for line in block.splitlines())
            assert fact.rstrip(".").endswith(answer)  # copy examples answer with the fact's own object
        IKE(model, filled, IKEOptions(demonstrations=0)).answer("Where is the Eiffel Tower?")
        assert "Answer:" not in words_of(model.prompts[-1])

    def test_the_same_question_gets_the_same_prompt(self, filled: Gate) -> None:
        model = CopyingModel(context=1024)
        for _ in range(2):
            IKE(model, filled).answer("Where is the Eiffel Tower?")
        assert model.prompts[0] == model.prompts[1]

    def test_more_context_is_worth_more_demonstrations(self) -> None:
        assert [budget(tokens) for tokens in (128, 512, 1024, 2048, 8192)] == [0, 4, 16, 32, 32]


def _said(with_fact: str, alone: str) -> FakeModel:
    return FakeModel(lambda text: with_fact if "New fact: " in text else alone)


class TestTakingOver:
    """An answer that ignores the fact is replaced by what the fact says; any other one stands."""

    @pytest.mark.parametrize(
        ("with_fact", "alone", "why"),
        [
            ("I don't know", "Paris", "did not use the fact and knew no answer"),
            ("Paris", "Paris", "'Paris', as without it"),
            ("Ronme", "Paris", "misspelt it as 'Ronme'"),
        ],
    )
    def test_the_fact_answers_instead(self, filled: Gate, with_fact: str, alone: str, why: str) -> None:
        items = list(IKE(_said(with_fact, alone), filled).stream("Where is the Eiffel Tower?"))
        answer = items[-1]
        assert isinstance(answer, Answer)
        assert (items[:-1], answer.answer, answer.source) == (["Rome"], "Rome", "memory")
        assert why in answer.steps[0]["verdict"]

    @pytest.mark.parametrize("said", ["Italy", "Rome", "In Rome, since 2020.", "Eiffel Tower", "No", "word " * 40])
    def test_stands(self, filled: Gate, said: str) -> None:
        answer = IKE(_said(said, "Paris"), filled).answer("Where is the Eiffel Tower?")
        assert (answer.answer, answer.steps) == (said.strip(), ())

    def test_what_only_looks_like_the_object_or_asks_for_more_stands(self, gate: Gate) -> None:
        gate.store.add("Eiffel Tower", "located_in", "Tunis")
        assert IKE(_said("Tunisia", "Paris"), gate).answer("Where is the Eiffel Tower?").answer == "Tunisia"
        asked = "Which country is the Eiffel Tower in?"
        assert IKE(_said("France", "France"), gate).answer(asked).answer == "France"

    def test_a_part_of_the_subjects_name_is_not_the_fact(self, gate: Gate) -> None:
        gate.store.add("Manchester United", "home_city", "Leeds")
        answer = IKE(_said("Manchester", "Manchester"), gate).answer("What is the home city of Manchester United?")
        assert (answer.answer, len(answer.steps)) == ("Leeds", 1)

    def test_the_papers_method_is_one_switch_away(self, filled: Gate) -> None:
        answer = IKE(_said("Paris", "Paris"), filled, IKEOptions(checked=False)).answer("Where is the Eiffel Tower?")
        assert (answer.answer, answer.steps) == ("Paris", ())

    def test_a_long_answer_is_streamed_as_it_comes(self, filled: Gate) -> None:
        stream = IKE(_said("word " * 60, "Paris"), filled).stream("Where is the Eiffel Tower?")
        assert len(str(next(stream))) < 100
        stream.close()  # type: ignore[attr-defined]


class Stepper(CopyingModel):
    """Breaks "the country of the city of the Eiffel Tower" up, knows Paris and France, reads contradictions."""

    def __init__(self, steps: list[str]) -> None:
        super().__init__({"Eiffel Tower": "Paris", "country is Rome": "Italy", "Rome": "Italy"})
        self.steps = steps

    def _reply(self, text: str) -> str:
        if text.startswith("Break this question"):
            return self.steps[min(text.count("Subquestion: "), len(self.steps) - 1)]
        if "Retrieved fact: " in text:
            fact = text.split("Retrieved fact: ")[1].splitlines()[0].rstrip(".").split()[-1]
            return f"It contradicts. Answer: {fact}"
        return super()._reply(text)


class TestMeLLo:
    QUESTION = "Which country does the city where the Eiffel Tower stands belong to?"
    STEPS = ("Subquestion: Where is the Eiffel Tower?", "Subquestion: Which country is Rome in?", "Final answer: Japan")

    def test_follows_the_edited_chain_and_shows_it(self, filled: Gate) -> None:
        seen: list[dict[str, object]] = []
        answer = MeLLo(Stepper(list(self.STEPS)), filled).answer(self.QUESTION, on_step=seen.append)
        assert (answer.answer, answer.source) == ("Japan", "memory")
        assert [step["answer"] for step in answer.steps] == ["Rome", "Japan"]
        assert [step["tentative"] for step in answer.steps] == ["Paris", "Italy"]
        assert {step["verdict"] for step in answer.steps} == {"contradicts"}
        assert seen == list(answer.steps)
        assert [hit.fact.object for hit in answer.hits] == ["Rome", "Japan"]

    def test_without_a_fact_the_tentative_answer_stands(self, gate: Gate) -> None:
        answer = MeLLo(Stepper(list(self.STEPS)), gate).answer(self.QUESTION)
        assert [step["verdict"] for step in answer.steps] == ["nothing retrieved", "nothing retrieved"]
        assert answer.source == "model"

    @pytest.mark.parametrize(
        "steps",
        [
            ["Subquestion: Where is the Eiffel Tower?"],  # the same again and again
            ["I would rather talk about tea."],
            ["Subquestion: Where is the Eiffel Tower?", "Hm."],
            ["Final answer: Japan"],
            [""],
        ],
    )
    def test_a_model_that_loses_the_thread_still_ends(self, filled: Gate, steps: list[str]) -> None:
        model = Stepper(steps)
        answer = MeLLo(model, filled).answer(self.QUESTION)
        assert isinstance(answer.answer, str)
        assert len(model.prompts) <= 14

    def test_rounds_are_limited(self, filled: Gate) -> None:
        steps = [f"Subquestion: Who is number {number}?" for number in range(50)]
        assert len(MeLLo(Stepper(steps), filled, rounds=3).answer(self.QUESTION).steps) == 3
