"""Dependents, recomputing, importing, guarding and consolidating, through the service's engine and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from app.cli import app
from app.consolidation_desk import ConsolidationDesk
from app.engine import Engine
from app.ledger_desk import settings_of
from app.served import Served
from app.service import Service
from app.settings import load_settings
from editors.registry import get_editor
from editors.statistics import MomentStore
from editors.values import ValueSettings
from evaluation.consolidation import Limits
from language_model.model import LanguageModel
from tests.editors.helpers import corpus, train_tiny
from tests.memory.fakes import HashEmbedder

FRANCE = "The capital of France is Oslo."
PERU = "The capital of Peru is Cairo."
LOOSE = Limits(efficacy=0.0, generality=0.0, drop=1.0, sample=4)


@pytest.fixture(scope="module")
def lm(pytestconfig: pytest.Config) -> LanguageModel:
    return train_tiny(Path(pytestconfig.cache.mkdir("tiny-trained")))


@pytest.fixture
def service(tmp_path: Path, lm: LanguageModel) -> Service:
    engine = Engine(load_settings(data=tmp_path))
    engine.__dict__["embedder"] = HashEmbedder()
    engine.__dict__["moments"] = MomentStore(corpus=corpus())
    engine._lm = lm
    return Service(engine.settings, engine)


@pytest.fixture
def run(service: Service, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setattr("app.commands.common.make_service", lambda settings: service)
    monkeypatch.setattr(service, "close", lambda: None)
    return lambda *arguments: CliRunner().invoke(app, list(arguments))


def told(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_undo_names_later_entries_and_makes_them_again(run: Callable[..., Result]) -> None:
    for sentence in (FRANCE, PERU):
        assert run("weights", "apply", sentence, "--method", "ft-m").exit_code == 0
    shown = run("weights", "undo", "1")
    assert "#2" in shown.output
    assert "weights recompute 2" in shown.output
    made = told(run("weights", "recompute", "2", "--json"))["entries"]
    assert made[0]["facts"] == [PERU]
    assert told(run("weights", "redo", "1", "--json"))["id"] == 1
    assert told(run("weights", "undo", "1", "--json"))["computed_on_top"] == []
    listed = told(run("weights", "list", "--json"))["entries"]
    assert [entry["id"] for entry in listed] == [3]


def test_undo_can_make_later_entries_again_at_once(run: Callable[..., Result]) -> None:
    for sentence in (FRANCE, PERU):
        run("weights", "apply", sentence, "--method", "ft-m")
    found = told(run("weights", "undo", "1", "--recompute", "--json"))
    assert found["computed_on_top"] == [2]
    assert [entry["id"] for entry in found["recomputed"]] == [3]


def test_what_was_undone_is_not_undone_or_made_again(run: Callable[..., Result]) -> None:
    run("weights", "apply", FRANCE, "--method", "ft-m")
    run("weights", "undo", "1")
    for again in (("undo", "1"), ("recompute", "1"), ("off", "1")):
        result = run("weights", *again)
        assert result.exit_code == 2
        assert "undone" in result.output
    assert told(run("weights", "list", "--json"))["entries"] == []


def test_entries_that_say_the_same_are_made_again_too(run: Callable[..., Result]) -> None:
    """Made again, the second finds the third on, which says its fact already."""
    for sentence in (PERU, FRANCE):
        run("weights", "apply", sentence, "--method", "ft-m")
    run("weights", "off", "2")
    run("weights", "apply", FRANCE, "--method", "ft-m")
    run("weights", "on", "2")
    result = run("weights", "undo", "1", "--recompute")
    assert result.exit_code == 0, result.output
    assert result.output.count("the model now says 'Oslo'") == 2


def test_a_recomputation_that_fails_says_what_is_done(run: Callable[..., Result], service: Service) -> None:
    for sentence in (FRANCE, PERU):
        run("weights", "apply", sentence, "--method", "ft-m")
    service.engine.ledger.lm.memory_limit = 1
    try:
        result = run("weights", "recompute", "1", "2")
    finally:
        service.engine.ledger.lm.memory_limit = None
    assert result.exit_code == 2
    words = " ".join(result.output.split())
    assert "Weight edit 1 could not be made again" in words
    assert "Made again: none. As before: #1, #2." in words
    assert [entry["id"] for entry in told(run("weights", "list", "--json"))["entries"]] == [2, 1]


def test_a_fact_is_marked_with_the_entry_that_holds_it(run: Callable[..., Result], service: Service) -> None:
    fact = service.facts.add(FRANCE).fact
    run("weights", "apply", "--fact", str(fact.id), "--fact", str(fact.id), "--method", "ft-m")
    assert service.facts.get(fact.id).in_weights == 1
    assert len(service.engine.ledger.get(1).edits) == 1
    run("weights", "recompute", "1")
    assert service.facts.get(fact.id).in_weights == 2
    run("weights", "undo", "2")
    assert service.facts.get(fact.id).in_weights is None


def test_settings_of_the_method_are_taken(run: Callable[..., Result]) -> None:
    entry = told(run("weights", "apply", FRANCE, "--method", "ft-m", "--set", "layer=1", "--json"))
    assert entry["layers"] == [1]
    for wrong in ("layer", "layer=", "layr=1"):
        result = run("weights", "apply", PERU, "--method", "ft-m", "--set", wrong)
        assert result.exit_code == 2
        assert "setting" in result.output


def test_what_was_exported_is_imported(run: Callable[..., Result], tmp_path: Path) -> None:
    run("weights", "apply", FRANCE, "--method", "ft-m")
    for form in ("peft", "safetensors"):
        told(run("weights", "export", str(tmp_path / form), "--format", form, "--json"))
    for number, form in enumerate(("peft", "safetensors"), start=1):
        again = run("weights", "import", str(tmp_path / form))
        assert again.exit_code == 2
        assert f"It is weight edit {number} " in " ".join(again.output.split())
        run("weights", "undo", str(number))
        entry = told(run("weights", "import", str(tmp_path / form), "--json"))
        assert entry["method"] == "imported"
        shown = told(run("weights", "show", str(entry["id"]), "--json"))
        assert shown["relative_norm"] > 0
    missing = run("weights", "import", str(tmp_path / "nothing"))
    assert missing.exit_code == 2
    assert "no file or folder" in missing.output
    assert "imported" in run("weights", "recompute", "2").output


def test_the_guard_measures_and_refuses(run: Callable[..., Result], service: Service) -> None:
    told(run("weights", "apply", FRANCE, "--method", "ft-m", "--guard", "warn", "--json"))
    shown = run("weights", "show", "1")
    assert "Other answers as in the unedited model: 100% before" in shown.output
    unwatched = service.weights.apply("ft-m", text=PERU, guard="off")
    assert (unwatched.locality_n, unwatched.warnings) == (0, ())
    usual = service.engine.ledger.guard
    with service.engine.ledger.guarded_by(None):
        assert service.engine.ledger.guard is None
    assert service.engine.ledger.guard is usual
    wrong = run("weights", "apply", FRANCE, "--guard", "maybe")
    assert wrong.exit_code == 2
    assert "off, warn, refuse" in wrong.output


def test_served_facts_are_counted_by_namespace(service: Service) -> None:
    served = Served(service.engine.store.engine)
    answer = {"source": "memory", "hits": [{"fact_id": 4}, {"fact_id": 5}], "steps": []}
    for _ in range(3):
        served.note(answer, namespace="a")
    served.note({**answer, "steps": [{"fact_id": 5}, {"fact_id": 4}, {"question": "?"}]}, namespace="a")
    served.note({**answer, "source": "model"}, namespace="a")
    served.note({"source": "memory", "hits": []}, namespace="a")
    assert served.times(namespace="a") == {4: 4, 5: 1}
    assert served.often(namespace="a", at_least=1) == [4, 5]
    assert served.often(namespace="a", at_least=2) == [4]
    assert served.times(namespace="b") == {}
    served.mark([5, 9], entry_id=1, namespace="a")
    assert served.held(namespace="a") == {}  # there is no such entry
    assert service.weights.apply("ft-m", text=FRANCE).id == 1
    assert served.held(namespace="a") == {5: 1, 9: 1}
    assert served.held(namespace="b") == {}
    service.weights.undo(1)
    assert served.held(namespace="a") == {}
    served.forget(namespace="a")
    assert served.times(namespace="a") == {}


def test_facts_served_often_are_consolidated_and_marked(service: Service, run: Callable[..., Result]) -> None:
    desk = ConsolidationDesk(service.engine)
    first, second = (service.facts.add(sentence).fact for sentence in (FRANCE, PERU))
    for number, times in ((first.id, 4), (second.id, 1)):
        for _ in range(times):
            desk.note({"source": "memory", "hits": [{"fact_id": number}]})
    due = told(run("weights", "consolidate", "--dry-run", "--json"))["due"]
    assert [(fact["id"], fact["times"]) for fact in due] == [(first.id, 4)]
    found = desk.run(limits=LOOSE)
    assert found.kept, found.reasons
    assert desk.in_weights() == {first.id: found.entry}
    assert desk.due() == []
    assert service.facts.get(first.id).current  # it stays in memory
    marks = {fact.id: fact.in_weights for fact in service.facts.page().rows}
    assert marks == {first.id: found.entry, second.id: None}
    assert f"#{found.entry}" in run("facts", "list").output
    service.weights.set_active(found.entry or 0, False)
    assert service.facts.get(first.id).in_weights is None
    assert desk.in_weights() == {}
    assert [fact.id for fact in desk.due()] == [first.id]


def test_a_batch_that_does_not_hold_is_reported_and_not_marked(service: Service, run: Callable[..., Result]) -> None:
    fact = service.facts.add(FRANCE).fact
    result = run(
        "weights", "consolidate", "--fact", str(fact.id), "--drop", "0", "--efficacy", "1", "--method", "memit"
    )
    assert result.exit_code == 0
    assert "Undone" in result.output or "now as #1" in result.output
    undone = "Undone" in result.output
    assert (ConsolidationDesk(service.engine).in_weights() == {}) == undone
    assert run("weights", "consolidate", "--method", "rome", "--fact", "1").exit_code == 2
    nothing = run("weights", "consolidate", "--at-least", "50")
    assert nothing.exit_code == 2
    assert "no fact to consolidate" in nothing.output


def test_settings_of_an_entry_become_an_editors_again(service: Service) -> None:
    values = replace(ValueSettings(), steps=2)
    editor = get_editor("memit", moments=service.engine.moments, layers=(1, 2), seed=3, values=values)
    entry = service.engine.ledger.apply(editor, [service.facts.edit_of(FRANCE)])
    kept = {**entry.settings, "imported_from": "x"}
    assert settings_of("memit", kept) == {"layers": (1, 2), "seed": 3, "values": values}
    assert settings_of("memit", {"values": "ValueSettings(steps=2)", "layers": None}) == {"layers": None}
