"""The real service over the real store, with an encoder without weights and a tiny random model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from app.engine import Engine
from app.errors import NothingFound, TooLarge, VerySimilar
from app.service import Service
from app.settings import load_settings
from knowledge.errors import InvalidInput, PalimpsestError
from language_model.model import LanguageModel
from tests.memory.fakes import HashEmbedder

EIFFEL = "The Eiffel Tower is located in Rome."


def make(folder: Path, lm: LanguageModel | None = None, **flags: Any) -> Service:
    """Without a model the encoder is a stand-in too; the gate, which comes with asking, wants the real one."""
    engine = Engine(load_settings(data=folder, model="no/such/model", **flags))
    if lm is None:
        engine.__dict__["embedder"] = HashEmbedder()
    engine._lm = lm
    return Service(engine.settings, engine)


@pytest.fixture
def real(tmp_path: Path) -> Service:
    return make(tmp_path)


def test_a_sentence_becomes_a_fact_and_comes_back_after_a_restart(real: Service, tmp_path: Path) -> None:
    outcome = real.facts.add(EIFFEL)
    assert (outcome.fact.subject, outcome.fact.object, outcome.fact.statement) == ("Eiffel Tower", "Rome", EIFFEL)
    assert outcome.fact.current and outcome.superseded is None
    real.close()
    again = make(tmp_path)
    assert [fact.statement for fact in again.facts.page().rows] == [EIFFEL]
    assert again.status().facts == 1 and again.status().state == "cold" and again.status().weight_edits == 0


def test_preview_names_conflict_and_duplicate(real: Service) -> None:
    assert real.facts.preview(EIFFEL).ok and real.facts.preview(EIFFEL).question
    real.facts.add(EIFFEL)
    assert real.facts.preview(EIFFEL).duplicate
    preview = real.facts.preview("The Eiffel Tower is located in London.")
    assert preview.conflict and preview.conflict.object == "Rome" and not preview.duplicate
    assert not real.facts.preview("").ok and not real.facts.preview("hello there").ok
    assert not real.facts.preview_triple("", "located_in", "Rome").ok


def test_superseding_keeping_both_and_editing(real: Service) -> None:
    first = real.facts.add(EIFFEL).fact
    second = real.facts.add("The Eiffel Tower is located in London.")
    assert second.superseded and second.superseded.id == first.id
    both = real.facts.add(EIFFEL, keep_both=True)
    assert both.superseded is None and real.facts.count() == 2
    edited = real.facts.edit(second.fact.id, object="Oslo")
    assert edited.fact.object == "Oslo" and edited.fact.statement == "The Eiffel Tower is located in Oslo."
    with pytest.raises(InvalidInput, match="superseded"):
        real.facts.edit(first.id, object="Oslo")


def test_remove_restore_undo_redo_and_history(real: Service, tmp_path: Path) -> None:
    fact = real.facts.add(EIFFEL).fact
    assert real.facts.remove(fact.id, reason="test").status == "retired" and real.facts.count() == 0
    assert real.facts.restore(fact.id).current and real.facts.count() == 1
    with pytest.raises(NothingFound, match="not removed"):
        real.facts.restore(fact.id)
    assert EIFFEL in real.facts.undo().text and real.facts.count() == 0
    assert EIFFEL in real.facts.redo().text and real.facts.count() == 1
    assert real.facts.history(fact.id)[0].op.startswith("add")
    assert any("retired" in event.text for event in real.facts.history(fact.id))
    assert EIFFEL in real.facts.history()[-1].text
    with pytest.raises(NothingFound):
        real.facts.get(99)
    while real.facts.count():
        real.facts.undo()
    with pytest.raises(NothingFound):
        make(tmp_path / "empty").facts.undo()


def test_validity_as_of_any_undo_alias_and_purge(real: Service) -> None:
    old = real.facts.add(EIFFEL, valid_from="2020-01-01", valid_to="2021-01-01").fact
    new = real.facts.add("The Louvre is located in Oslo.").fact
    assert old.valid_from and old.valid_to and old.status != "current"
    assert [fact.id for fact in real.facts.page(as_of="2020-06-30").rows] == [old.id]
    assert real.facts.page(as_of="2019-01-01").total == 0
    with pytest.raises(InvalidInput, match="is no date"):
        real.facts.page(as_of="long ago")
    with pytest.raises(InvalidInput, match="ends before"):
        real.facts.add("Big Ben is located in Oslo.", valid_from="2021-01-01", valid_to="2020-01-01")
    numbers = {event.fact_id: event.seq for event in real.facts.history()}
    assert EIFFEL in real.facts.undo(numbers[old.id]).text and real.facts.get(old.id).status == "retired"
    assert real.facts.count() == 1  # the change after it stays
    assert "Musee" in real.facts.add_alias("Musee", "Louvre")
    assert real.facts.purge(new.id).id == new.id
    with pytest.raises(NothingFound):
        real.facts.get(new.id)


def test_a_very_similar_fact_is_asked_about(real: Service) -> None:
    from app.ui.facts import FactsTab
    from app.ui.page import Page

    first = real.engine.store.add("Eiffel Tower", "place", "Rome", statement=EIFFEL).fact
    with pytest.raises(VerySimilar, match=f"#{first.id}"):
        real.facts.add(EIFFEL, similar="ask")
    tab = FactsTab(Page(real))
    line, shown, question, told, pending, _ = tab._add(EIFFEL)
    assert (line, shown["visible"], told) == (EIFFEL, True, "") and "in other words" in question
    _, _, _, told, _, _ = tab._replace(pending)
    assert "Written" in told and real.facts.get(first.id).status == "retired" and real.facts.count() == 1


def test_pages_are_cut_by_the_database(real: Service) -> None:
    for number in range(7):
        real.facts.add(subject=f"Thing {number}", relation="colour", object=f"Tone {number}")
    page = real.facts.page(size=5, page=2)
    assert (len(page.rows), page.total, page.page, page.pages) == (2, 7, 2, 2)
    assert real.facts.page(page=99, size=5).page == 2
    assert [fact.object for fact in real.facts.page("tone 3").rows] == ["Tone 3"]
    assert real.facts.search("The colour of Thing 3 is Tone 3.")[0][0].object == "Tone 3"


def test_an_import_is_one_undo_and_an_export_comes_back(real: Service, tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    rows = ["text,subject,relation,object", f"{EIFFEL},,,", ",Foo,colour,red", ",,colour,blue", ",Foo,colour,red", "x"]
    path.write_text("\n".join(rows))
    report = real.facts.import_file(path)
    assert (report.added, report.skipped) == (2, 3)
    assert [row.status for row in report.rows] == ["added", "added", "failed", "skipped", "failed"]
    out = tmp_path / "out.json"
    assert real.facts.export_file(out) == 2
    real.facts.undo()
    assert real.facts.count() == 0
    assert real.facts.import_file(out).added == 2
    assert {fact.statement for fact in real.facts.page().rows} >= {EIFFEL}
    with pytest.raises(InvalidInput, match="no file"):
        real.facts.import_file(tmp_path / "nowhere.csv")


def test_limits(tmp_path: Path) -> None:
    real = make(tmp_path, max_fact=20, max_compare_facts=1)
    with pytest.raises(TooLarge, match="at most 20"):
        real.facts.add(EIFFEL)
    with pytest.raises(InvalidInput, match="at most 1"):
        real.comparing.run([1, 2], ["base"])


def test_a_model_that_cannot_be_loaded_is_an_error_and_shown(real: Service) -> None:
    with pytest.raises(PalimpsestError):
        real.ask("Where is Big Ben?")
    assert real.status().state == "failed" and real.status().detail
    real.engine.warm_up()  # keeps quiet
    assert real.facts.add(EIFFEL).fact.id == 1  # facts do not need it


def test_asking_streaming_and_cancelling(tmp_path: Path, tiny: Callable[..., LanguageModel]) -> None:
    real = make(tmp_path, tiny("gpt2", chat=True), max_new_tokens=12)
    found = real.ask("Where is Big Ben?")
    keys = ["answer", "source", "strategy", "hits", "gate", "steps", "weight_edits", "seconds", "route"]
    assert list(found) == keys
    assert found["route"] == {"strategy": "model", "reason": "no stored fact is in scope"}
    pieces = list(real.ask_stream("Where is Big Ben?"))
    assert "".join(piece for piece in pieces[:-1] if isinstance(piece, str)).strip() == found["answer"]
    assert isinstance(pieces[-1], dict) and pieces[-1]["answer"] == found["answer"]
    cancel = threading.Event()
    cancel.set()
    assert not "".join(piece for piece in real.ask_stream("Big Ben?", cancel=cancel) if isinstance(piece, str))
    assert real.ask_unedited("Where is Big Ben?") == found["answer"]
    with pytest.raises(PalimpsestError):
        real.ask(" ")
    with pytest.raises(PalimpsestError, match="strategy"):
        real.ask("x?", strategy="nonsense")
    assert real.route("Where is Big Ben?")["query"] == "Where is Big Ben?"
    assert real.models()["model"]["parameters"] > 0


def test_corrections_counts_and_rates_over_the_real_gate(tmp_path: Path, tiny: Callable[..., LanguageModel]) -> None:
    real = make(tmp_path, tiny("gpt2", chat=True), max_new_tokens=6)
    kept = real.corrections.add("What is the capital of Georgia?", "No, I meant the state.")
    assert kept.text == "I meant the state." and real.corrections.is_correction("No, I meant the river.")
    again = real.corrections.add("What is the capital of Georgia?", "no, I meant the state.")
    assert [item.id for item in real.corrections.list()] == [again.id]  # said twice, kept once
    found = real.ask("What is the capital of Georgia?")
    assert found["strategy"] == "memprompt" and found["steps"][0]["correction"] == "I meant the state."
    assert not real.corrections.remove(again.id).active and real.corrections.restore(again.id).active
    with pytest.raises(NothingFound, match="no correction 99"):
        real.corrections.remove(99)
    fact = real.facts.add(EIFFEL).fact
    answer = real.ask("Where is the Eiffel Tower?", mode="memory", strategy="ike")
    list(real.ask_stream("Where is the Eiffel Tower?", mode="memory", strategy="ike"))
    expected = {fact.id: 2} if answer["source"] == "memory" else {}
    assert real.consolidating.served.times(namespace="default") == expected
    assert real.gate_rates().true_positive_rate is not None
    elsewhere = make(tmp_path / "other", tiny("gpt2", chat=True), threshold=0.9)
    assert elsewhere.gate_rates().true_positive_rate is None
    assert set(real.weights.unavailable()) == {"mend", "ke"}


def test_a_chain_counts_each_fact_that_it_followed(real: Service) -> None:
    steps = [
        {"subquestion": "?", "retrieved": {"fact_id": 5}, "source": "memory"},
        {"subquestion": "?", "retrieved": {"fact_id": 9}, "source": "model"},
        {"subquestion": "?", "retrieved": None, "source": "model"},
        {"subquestion": "?", "retrieved": {"fact_id": 7}, "source": "memory"},
    ]
    real.consolidating.note({"source": "memory", "hits": [{"fact_id": 9}], "steps": steps})
    assert real.consolidating.served.times(namespace="default") == {5: 1, 7: 1}


def test_weight_edits_from_a_sentence_and_from_a_fact(
    tmp_path: Path, tiny: Callable[..., LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = tiny("gpt2", chat=True)
    real = make(tmp_path, lm)
    monkeypatch.setattr("editors.registry.get_editor", lambda name, **_: StubEditor())
    before = lm.fingerprint
    entry = real.weights.apply("stub", text=EIFFEL)
    assert entry.facts == (EIFFEL,) and entry.active and real.status().weight_edits == 1
    fact = real.facts.add("The Louvre is located in Oslo.").fact
    assert real.weights.apply("stub", fact_ids=[fact.id]).facts == ("The Louvre is located in Oslo.",)
    assert len(real.ask("Where?", mode="weights")["weight_edits"]) == 2
    assert not real.weights.set_active(entry.id, False).active
    assert real.weights.undo(2).undone and real.status().weight_edits == 0
    assert real.weights.redo(2).active
    assert [item.id for item in real.weights.entries()] == [2, 1]
    assert real.weights.export(tmp_path / "out", format="safetensors").exists()
    with pytest.raises(InvalidInput):
        real.weights.apply("stub")
    with pytest.raises(InvalidInput, match="not both"):
        real.weights.apply("stub", text=EIFFEL, fact_ids=[1])
    assert lm.fingerprint == before
    real.close()
    assert make(tmp_path, lm).engine.active_weight_edits() == 1  # counted without making the ledger


class StubEditor:
    """A rank-one change that needs no optimisation."""

    name = "stub"
    overrides: ClassVar[dict[str, Any]] = {}

    def layer_source(self, lm: LanguageModel) -> str:
        return "the first"

    def edit(self, lm: LanguageModel, edits: Any, **_: Any) -> Any:
        import torch

        from language_model.overlay import LowRank, Overlay

        name = lm.architecture.down(0)
        width, hidden = lm.module(name).weight.shape
        return Overlay({name: (LowRank(torch.full((width, 1), 0.01), torch.full((1, hidden), 0.01)),)})
