"""Probes that a user changes, and benchmarks: the lines of text, and the desks on a tiny model."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from app.service import Service
from app.settings import load_settings
from app.ui.probe_lines import as_text, from_text
from app.views import ProbeLine
from knowledge.errors import InvalidInput, UnknownName
from language_model.tiny import tiny_model
from tests.memory.fakes import HashEmbedder

EIFFEL = "The Eiffel Tower is located in Rome."
LINES = (
    ProbeLine(0, "efficacy", "Where is the Eiffel Tower?", "Rome"),
    ProbeLine(0, "locality_neighbour", "Where is Big Ben?"),
    ProbeLine(1, "generality", "Who painted it?", "Goya"),
)


def test_lines_come_back_as_they_were() -> None:
    text = as_text(LINES, [EIFFEL, "Guernica was painted by Goya."])
    assert text.splitlines()[:3] == [
        f"# {EIFFEL}", "the fact itself | Where is the Eiffel Tower? | Rome", "other subjects | Where is Big Ben?",
    ]  # fmt: skip
    assert from_text(text) == list(LINES)


def test_a_line_without_a_kind_is_another_wording() -> None:
    assert from_text("Where does it stand? | Rome") == [ProbeLine(0, "generality", "Where does it stand?", "Rome")]


@pytest.mark.parametrize(
    ("text", "told"),
    [("Where is it?", "Line 1"), ("\nnonsense | a? | b", "unknown kind 'nonsense'"), ("unrelated | | x", "Line 1")],
)
def test_bad_lines_are_named(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        from_text(text)


@pytest.fixture
def real(tmp_path: Path) -> Service:
    service = Service(load_settings(data=tmp_path))
    service.engine.__dict__["embedder"] = HashEmbedder()  # nothing here asks the gate
    service.engine._lm = tiny_model("gpt2", chat=True)
    return service


def test_probes_of_a_fact_can_be_changed_and_added(real: Service) -> None:
    made = real.comparing.probes([EIFFEL])
    assert {line.fact for line in made} == {0} and any(line.kind == "efficacy" for line in made)
    asked = [made[0], ProbeLine(0, "locality_unrelated", "Who wrote Hamlet?"),
             ProbeLine(0, "generality", "Which city has it?", "Rome")]  # fmt: skip
    found = real.comparing.run([EIFFEL], ["base"], probes=asked)
    assert [probe.prompt for probe in found.probes] == [line.prompt for line in asked]
    assert found.probes[1].answers["base"].right  # what the unedited model says is what must stay
    with pytest.raises(InvalidInput, match="right answer"):
        real.comparing.run([EIFFEL], ["base"], probes=[ProbeLine(0, "efficacy", "Where is it?")])
    with pytest.raises(InvalidInput, match="belongs to fact 2"):
        real.comparing.run([EIFFEL], ["base"], probes=[ProbeLine(1, "efficacy", "Where is it?", "Rome")])


def test_a_benchmark_counts_all_its_facts(real: Service) -> None:
    told: list[str] = []
    found = real.benchmarking.run(2, ["base"], progress=lambda share, what: told.append(what))
    assert len(found.facts) == 2 and len(set(found.facts)) == 2
    assert found.rows[0].cells["efficacy"].n == sum(probe.kind == "efficacy" for probe in found.probes)
    assert any("fact 2 of 2" in what for what in told)
    assert real.benchmarking.run(2, ["base"], together=True).facts == found.facts


def test_a_benchmark_is_refused_and_stopped(real: Service) -> None:
    with pytest.raises(InvalidInput, match="1 to"):
        real.benchmarking.run(0, ["base"])
    with pytest.raises(UnknownName):
        real.benchmarking.run(1, ["nonsense"])
    cancel = threading.Event()
    cancel.set()
    assert real.benchmarking.run(3, ["base"], cancel=cancel).rows == ()
