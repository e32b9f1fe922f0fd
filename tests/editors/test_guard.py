"""The guard measures each entry, warns or refuses; entries made on top are named and can be made again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import create_engine, text

from editors.base import EditRefused
from editors.guard import Guard, GuardRefused, Locality, LocalitySample
from editors.ledger import LedgerError, WeightLedger
from editors.registry import get_editor
from knowledge.world import load_world
from language_model.model import LanguageModel
from language_model.overlay import LowRank, Overlay
from language_model.tiny import tiny_model
from tests.editors.helpers import capital_edit

QUICK: dict[str, Any] = {"layer": 0, "steps": 2, "refuse_known": False}


def make(lm: LanguageModel, folder: Path, guard: Guard | None) -> WeightLedger:
    return WeightLedger(create_engine(f"sqlite:///{folder / 'state.sqlite'}"), lm, folder / "weights", guard=guard)


def wreck(lm: LanguageModel, size: float = 30.0) -> Overlay:
    generator = torch.Generator().manual_seed(0)
    u, v = torch.randn(128, 4, generator=generator), torch.randn(4, 32, generator=generator)
    return Overlay({lm.architecture.down(1): (LowRank(size * u, v),)})


def test_an_entry_keeps_its_size_and_its_locality(tiny_chat_lm: LanguageModel, tmp_path: Path) -> None:
    ledger = make(tiny_chat_lm, tmp_path, Guard(sample=LocalitySample(6)))
    entry = ledger.apply(get_editor("ft-m", **QUICK), [capital_edit("France", "Oslo")])
    assert entry.locality is not None
    assert entry.locality.n == 6
    assert entry.locality.before == 1.0
    assert 0 <= entry.locality.after <= 1
    assert entry.norms == ledger.entries()[0].norms
    again = make(tiny_chat_lm, tmp_path, None).get(entry.id)
    assert (again.locality, again.warnings) == (entry.locality, entry.warnings)
    assert again.to_json()["locality"] == {"before": 1.0, "after": entry.locality.after, "n": 6}


def test_past_the_limit_it_warns_or_refuses(tiny_chat_lm: LanguageModel, tmp_path: Path) -> None:
    ledger = make(tiny_chat_lm, tmp_path, Guard(sample=LocalitySample(6)))
    entry = ledger.add(wreck(tiny_chat_lm), source="elsewhere")
    assert "times as large as its weight" in entry.warnings[0]
    assert "other answers changed" in entry.warnings[1]
    ledger.undo(entry.id)
    ledger.guard = Guard(limit="refuse")
    files = set(ledger.folder.iterdir())
    with pytest.raises(GuardRefused, match="the model is as before"):
        ledger.add(wreck(tiny_chat_lm), source="elsewhere")
    assert ledger.entries() == []
    assert set(ledger.folder.iterdir()) == files
    assert ledger.add(wreck(tiny_chat_lm, 1e-4), source="elsewhere").warnings == ()


def test_one_changed_answer_of_a_small_sample_is_no_evidence() -> None:
    guard = Guard(drop=0.1, least=0.7)
    assert guard.warnings({}, Locality(1.0, 0.8, 5)) == ()
    assert guard.warnings({}, Locality(1.0, 0.6, 5))
    assert "earlier edits" in guard.warnings({}, Locality(0.62, 0.6, 50))[0]
    assert guard.warnings({"a": 0.4}, None) == ()
    assert guard.warnings({"a": 0.6}, None)


def test_a_large_change_is_reported_when_other_answers_moved_or_cannot_be_asked() -> None:
    guard, norms, limits = Guard(), {"a": 0.67, "b": 0.1}, {"a": 0.5, "b": 0.5}
    assert guard.warnings(norms, Locality(1.0, 1.0, 24), limits) == ()
    assert guard.warnings(norms, Locality(1.0, 23 / 24, 24), limits) == ()  # one answer is no evidence
    (warning,) = guard.warnings(norms, Locality(1.0, 22 / 24, 24), limits)  # two are, beside a large change
    assert "change of a is 0.67 times" in warning
    assert guard.warnings({"a": 0.4}, Locality(1.0, 22 / 24, 24), limits) == ()
    assert guard.warnings(norms, None, limits)
    assert guard.warnings(norms, Locality(1.0, 1.0, 3), limits)  # three questions do not speak for all others
    assert guard.warnings({"a": 5.1}, Locality(1.0, 1.0, 24), limits)  # out of all proportion


def test_the_limit_follows_the_width_of_the_layer(tiny_chat_lm: LanguageModel) -> None:
    """Twice the inputs, the same edit: half the square of |dW| / |W|."""
    name = tiny_chat_lm.architecture.down(1)
    wide = tiny_model("gpt2", n_inner=512)
    guard = Guard(norm=0.5)
    narrow_limit, wide_limit = guard.limits(tiny_chat_lm, [name])[name], guard.limits(wide, [name])[name]
    assert narrow_limit == pytest.approx(0.5 * (6400 / 128) ** 0.5)
    assert narrow_limit == pytest.approx(2 * wide_limit)


def test_the_sample_names_no_edited_subject(tiny_chat_lm: LanguageModel) -> None:
    sample = LocalitySample(30)
    every = [str(prompt) for prompt in sample.prompts(tiny_chat_lm, [])]
    assert len(every) == 30
    subject = next(f.subject for f in load_world().facts if any(f.subject in prompt for prompt in every))
    edit = capital_edit(subject, "Oslo")
    assert not [p for p in sample.prompts(tiny_chat_lm, [edit]) if f" {subject}?" in str(p)]
    assert LocalitySample(0).measure(tiny_chat_lm, Overlay.empty(), Overlay.empty()) is None


def test_half_of_the_sample_asks_what_the_edits_say_of_other_subjects(tiny_chat_lm: LanguageModel) -> None:
    sample, france = LocalitySample(24), capital_edit("France", "Oslo")
    far, near = (sample.prompts(tiny_chat_lm, [france], edits) for edits in ((), (france,)))
    capitals = [prompt for prompt in near if "capital" in str(prompt)]
    assert len(near) == len(set(map(str, near))) == len(far) == 24
    assert 12 <= len(capitals) < 20
    assert not [prompt for prompt in near if "France" in str(prompt)]
    assert near == sample.prompts(tiny_chat_lm, [france], [france, replace(france, relation=None)])
    assert far == sample.prompts(tiny_chat_lm, [france], [replace(france, relation="no such relation")])


def test_a_ledger_without_the_table_of_checks_is_read(tiny_chat_lm: LanguageModel, tmp_path: Path) -> None:
    ledger = make(tiny_chat_lm, tmp_path, None)
    entry = ledger.add(wreck(tiny_chat_lm, 1e-3), source="elsewhere")
    with ledger.engine.begin() as connection:
        connection.execute(text("drop table weight_edit_check"))
    again = make(tiny_chat_lm, tmp_path, None)
    assert again.get(entry.id).locality is None
    assert again.entries()[0].imported_from == "elsewhere"


def test_later_entries_are_named_and_made_again(tiny_chat_lm: LanguageModel, tmp_path: Path) -> None:
    ledger, editor = make(tiny_chat_lm, tmp_path, None), get_editor("ft-m", **QUICK)
    first = ledger.apply(editor, [capital_edit("France", "Oslo")])
    second = ledger.apply(editor, [capital_edit("Peru", "Cairo")])
    assert [entry.id for entry in ledger.dependents(first.id)] == [second.id]
    ledger.undo(first.id)
    third = ledger.recompute(second.id, editor)
    assert third.edits == second.edits
    assert third.on_top_of == ()
    assert [entry.id for entry in ledger.entries()] == [third.id]
    alone = editor.edit(tiny_chat_lm, second.edits)
    for name in alone.modules:
        one, other = alone.delta(name), ledger.overlay().delta(name)
        assert one is not None
        assert other is not None
        assert torch.equal(one, other)


def test_an_entry_that_cannot_be_made_again_stays(tiny_chat_lm: LanguageModel, tmp_path: Path) -> None:
    ledger = make(tiny_chat_lm, tmp_path, None)
    imported = ledger.add(wreck(tiny_chat_lm, 1e-3), source="elsewhere")
    with pytest.raises(LedgerError, match="imported"):
        ledger.recompute(imported.id, get_editor("ft-m"))
    entry = ledger.apply(get_editor("ft-m", **QUICK), [capital_edit("France", "Oslo")])
    with pytest.raises(EditRefused):
        ledger.recompute(entry.id, get_editor("rome", layer=99, refuse_known=False))
    assert [item.id for item in ledger.entries()] == [imported.id, entry.id]
    assert all(item.active for item in ledger.entries())
