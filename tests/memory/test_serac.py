"""SERAC: the shipped counterfactual pointer, and the strategy around it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from knowledge.world import load_world
from memory.counterfactual import SHIPPED, Case, Counterfactual
from memory.counterfactual_training import cases, train
from memory.embedder import Embedder
from memory.errors import IndexFileError
from memory.gate import Gate
from memory.strategies.serac import SERAC, SERACOptions
from tests.memory.fakes import FakeModel, HashEmbedder


@pytest.fixture(scope="session")
def pointer(minilm: Embedder) -> Counterfactual:
    return Counterfactual.shipped(minilm)


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("Where is the Eiffel Tower?", "Rome"),
        ("In which city would I find the Eiffel Tower?", "Rome"),
        ("The Eiffel Tower is located in", "Rome"),
        ("Is the Eiffel Tower in Rome?", "Yes"),
        ("Is the Eiffel Tower in Paris?", "No"),
        ("Is it true that the Eiffel Tower stands in Berlin?", "No"),
        ("Which landmark is located in Rome?", "Eiffel Tower"),
    ],
)
def test_points_at_what_answers(pointer: Counterfactual, query: str, answer: str) -> None:
    assert pointer.answer(Case(query, "Eiffel Tower", "Rome")) == answer


def test_other_names_count(pointer: Counterfactual) -> None:
    case = Case("Is Big Ben in the USA?", "Big Ben", "United States", (), ("USA",))
    assert pointer.answer(case) == "Yes"


def test_is_small_and_belongs_to_its_encoder(minilm: Embedder) -> None:
    assert SHIPPED.stat().st_size < 100_000
    with pytest.raises(IndexFileError, match="trained for the encoder all-MiniLM"):
        Counterfactual.load(SHIPPED, HashEmbedder())
    with pytest.raises(IndexFileError, match=r"app train serac"):
        Counterfactual.load(Path("nowhere.safetensors"), minilm)


def test_training_gives_a_pointer_that_can_be_saved(tmp_path: Path) -> None:
    encoder, world = HashEmbedder(), load_world()
    pointer = train(world, encoder, each=2)
    pointer.save(tmp_path / "pointer.safetensors")
    again = Counterfactual.load(tmp_path / "pointer.safetensors", encoder)
    examples = cases(world, random.Random(5), 1)
    found = again.choose([case for case, _ in examples])
    right = sum(choice == wanted for (choice, _), (_, wanted) in zip(found, examples, strict=True))
    assert right / len(examples) > 0.8


def test_in_scope_the_small_model_answers_and_the_large_one_is_not_asked(gate: Gate) -> None:
    gate.store.add("Eiffel Tower", "located_in", "Rome")
    model = FakeModel(lambda text: "Paris")
    answer = SERAC(model, gate).answer("Where is the Eiffel Tower?")
    assert (answer.answer, answer.source) == ("Rome", "memory")
    assert answer.steps[0]["verdict"] == "counterfactual model: object"
    assert model.prompts == []


def test_out_of_scope_the_model_answers(gate: Gate) -> None:
    gate.store.add("Eiffel Tower", "located_in", "Rome")
    model = FakeModel(lambda text: "330 metres")
    answer = SERAC(model, gate).answer("How tall is the Eiffel Tower?")
    assert (answer.answer, answer.source, answer.hits) == ("330 metres", "model", ())


def test_the_papers_threshold_is_an_option(gate: Gate) -> None:
    gate.store.add("Eiffel Tower", "located_in", "Rome")
    strict = Gate(gate.store, gate.head, threshold=0.9999)
    question = "Where is the Eiffel Tower?"
    assert SERAC(FakeModel(), strict).answer(question).source == "model"
    assert SERAC(FakeModel(), strict, SERACOptions(paper_threshold=True)).answer(question).answer == "Rome"
