"""The ledger: any entry in any order, kept across restarts, refused for other models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, create_engine

from editors.base import Editor, EditRefused, Hparams, Job
from editors.calinet import SideNet
from editors.ledger import LedgerError, WeightLedger
from knowledge.edit import Edit
from language_model.model import LanguageModel
from language_model.overlay import Adapter, Dense, LowRank, Overlay
from language_model.tiny import tiny_model
from tests.editors.helpers import capital_edit

PROMPTS = ["The capital of France is", "People in Peru speak", "Japan"]


class RandomEditor(Editor[Hparams]):
    """Writes noise that depends on the edit's target only: an editor whose cost is nothing."""

    name: ClassVar[str] = "noise"
    title: ClassVar[str] = "Noise"
    paper: ClassVar[str] = ""

    def compute(self, job: Job, settings: Hparams) -> Overlay:
        lm, edits = job.lm, job.edits
        generator = torch.Generator().manual_seed(sum(map(ord, edits[0].target_new)))
        if edits[0].target_new == "Boom":
            raise RuntimeError("boom")
        u, v = (torch.randn(shape, generator=generator) for shape in ((128, 2), (2, 32)))
        if edits[0].target_new == "Beside":  # added parameters, which do not commute with other adapters
            net = SideNet(2, 32, 32)
            with torch.no_grad():
                net.keys.copy_(v), net.values.copy_(v)
            return Overlay({lm.architecture.mlp(0): (Adapter(net.requires_grad_(False)),)})
        if len(edits[0].target_new) % 2:
            return Overlay({lm.architecture.down(1): (LowRank(u, v),)})
        return Overlay({lm.architecture.down(0): (Dense(u @ v),), lm.architecture.down(1): (LowRank(u, v),)})


def noise(target: str) -> tuple[RandomEditor, list[Edit]]:
    return RandomEditor(refuse_known=False), [capital_edit("France", target)]


def logits(lm: LanguageModel, overlay: Overlay | None) -> torch.Tensor:
    return torch.cat([lm.forward(lm.batch([p]), overlays=[overlay]).flatten() for p in PROMPTS])


def new_engine(folder: Path) -> Engine:
    return create_engine(f"sqlite:///{folder / 'state.sqlite'}")


@pytest.fixture
def ledger(tiny_lm: LanguageModel, tmp_path: Path) -> WeightLedger:
    return WeightLedger(new_engine(tmp_path), tiny_lm, tmp_path / "weights")


def fill(ledger: WeightLedger, targets: Sequence[str]) -> list[int]:
    return [ledger.apply(*noise(target)).id for target in targets]


def test_an_entry_says_what_was_done(ledger: WeightLedger) -> None:
    entry = ledger.apply(*noise("Lyon"))
    assert entry.method == "noise"
    assert entry.active
    assert entry.usable
    assert not entry.undone
    assert entry.edits[0].statement == "The capital of France is Lyon."
    assert entry.layers == (0, 1)
    assert set(entry.norms) == set(entry.modules)
    delta = ledger.overlay_of(entry.id).delta(entry.modules[0])
    assert delta is not None
    weight = ledger.lm.module(entry.modules[0]).weight
    assert entry.norms[entry.modules[0]] == pytest.approx(float(delta.norm() / weight.norm()), rel=1e-4)
    assert entry.relative_norm == max(entry.norms.values())
    assert entry.to_json()["statements"] == ["The capital of France is Lyon."]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_undone_in_any_order_equals_never_applied(
    tiny_lm: LanguageModel, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    ledger = WeightLedger(new_engine(folder), tiny_lm, folder / "weights")
    before = logits(tiny_lm, None)
    ids = fill(ledger, ["Lyon", "Nantes", "Beside", "Brest", "Beside"])
    alive = set(ids)
    for number in data.draw(st.permutations(ids)):
        way = data.draw(st.sampled_from(["undo", "off"]))
        _ = ledger.undo(number) if way == "undo" else ledger.set_active(number, False)
        alive.discard(number)
        only = Overlay.empty()
        for kept in sorted(alive):
            only = only + Overlay.load(next(p for p in [ledger.folder / f for f in files(ledger, kept)]))
        assert torch.equal(logits(tiny_lm, ledger.overlay()), logits(tiny_lm, only))
    assert torch.equal(logits(tiny_lm, ledger.overlay()), before)
    back = data.draw(st.permutations(ids))
    for number in back:
        if ledger.get(number).undone:
            ledger.redo(number)
        ledger.set_active(number, True)
    total = Overlay.empty()
    for number in ids:
        total = total + ledger.overlay_of(number)
    assert torch.equal(logits(tiny_lm, ledger.overlay()), logits(tiny_lm, total))
    assert torch.equal(logits(tiny_lm, None), before)


def files(ledger: WeightLedger, entry_id: int) -> list[str]:
    from sqlalchemy import text

    with ledger.engine.connect() as connection:
        rows = connection.execute(text("select file from weight_edit where id = :id"), {"id": entry_id})
        return [row[0] for row in rows]


def test_entries_survive_a_restart(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    first = WeightLedger(new_engine(tmp_path), tiny_lm, tmp_path / "weights")
    ids = fill(first, ["Lyon", "Nice", "Brest"])
    first.set_active(ids[1], False)
    first.undo(ids[2])
    said = logits(tiny_lm, first.overlay())
    second = WeightLedger(new_engine(tmp_path), tiny_lm, tmp_path / "weights")
    assert [(e.id, e.active) for e in second.entries()] == [(ids[0], True), (ids[1], False)]
    assert [e.id for e in second.entries(include_undone=True)] == ids
    assert second.get(ids[0]).edits == first.get(ids[0]).edits
    assert torch.equal(logits(tiny_lm, second.overlay()), said)
    assert second.redo(ids[2]).active


def test_another_model_is_refused(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    engine = new_engine(tmp_path)
    entry = WeightLedger(engine, tiny_lm, tmp_path / "weights").apply(*noise("Lyon"))
    other = WeightLedger(engine, tiny_model("gpt2", seed=99), tmp_path / "weights")
    assert not other.get(entry.id).usable
    assert not other.overlay()
    for attempt in (
        lambda: other.set_active(entry.id, True),
        lambda: other.overlay_of(entry.id),
        lambda: other.export(tmp_path / "out", entry_ids=[entry.id]),
    ):
        with pytest.raises(LedgerError, match="apply the edit again on this one"):
            attempt()
    assert not other.set_active(entry.id, False).active  # switching off is always allowed


def test_a_failed_edit_leaves_no_trace(ledger: WeightLedger) -> None:
    fill(ledger, ["Lyon"])
    before = ledger.overlay()
    with pytest.raises(RuntimeError):
        ledger.apply(*noise("Boom"))
    with pytest.raises(EditRefused):
        ledger.apply(RandomEditor(), [])
    assert len(ledger.entries(include_undone=True)) == 1
    assert len(list(ledger.folder.iterdir())) == 1
    assert ledger.overlay() is before


def test_errors_say_what_to_do(ledger: WeightLedger, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="none yet"):
        ledger.undo(7)
    with pytest.raises(LedgerError, match="no weight edit is active"):
        ledger.export(tmp_path / "out")
    (number,) = fill(ledger, ["Lyon"])
    ledger.undo(number)
    with pytest.raises(LedgerError, match="Redo it first"):
        ledger.set_active(number, True)
    with pytest.raises(LedgerError, match="Known: 1"):
        ledger.undo(99)


def test_damaged_factors_name_the_entry(tiny_lm: LanguageModel, tmp_path: Path) -> None:
    first = WeightLedger(new_engine(tmp_path), tiny_lm, tmp_path / "weights")
    entry = first.apply(*noise("Lyon"))
    (tmp_path / "weights" / files(first, entry.id)[0]).write_bytes(b"not factors")
    second = WeightLedger(new_engine(tmp_path), tiny_lm, tmp_path / "weights")
    with pytest.raises(LedgerError, match=f"weight edit {entry.id} cannot be read"):
        second.overlay()
    second.undo(entry.id)
    assert not second.overlay()


def test_dependents_are_the_later_entries_made_on_top(ledger: WeightLedger) -> None:
    one, two, three = fill(ledger, ["Lyon", "Nice", "Brest"])
    assert [e.id for e in ledger.dependents(one)] == [two, three]
    assert ledger.dependents(three) == []


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft asks transformers for it
@pytest.mark.parametrize("target", ["Nantes", "Lyon"])
def test_export_as_peft_gives_the_same_logits(ledger: WeightLedger, tmp_path: Path, target: str) -> None:
    import copy

    from peft import PeftModel

    fill(ledger, [target, "Brest"])
    folder = ledger.export(tmp_path / "adapter", format="peft")
    wanted = logits(ledger.lm, ledger.overlay())
    adapted = PeftModel.from_pretrained(copy.deepcopy(ledger.lm.model), str(folder))
    said = torch.cat([adapted(**ids(ledger.lm, p)).logits.flatten() for p in PROMPTS])
    assert torch.allclose(said, wanted, atol=1e-4)
    assert not torch.allclose(said, logits(ledger.lm, None), atol=1e-2)


def test_export_merged_and_factors(ledger: WeightLedger, tmp_path: Path) -> None:
    fill(ledger, ["Nantes", "Brest"])
    wanted = logits(ledger.lm, ledger.overlay())
    merged = LanguageModel.load(str(ledger.export(tmp_path / "merged", format="merged")))
    assert torch.allclose(logits(merged, None), wanted, atol=1e-4)
    loaded = Overlay.load(ledger.export(tmp_path / "factors", format="safetensors"))
    assert torch.equal(logits(ledger.lm, loaded), wanted)
    assert merged.fingerprint != ledger.lm.fingerprint


def ids(lm: LanguageModel, prompt: str) -> dict[str, Any]:
    return {"input_ids": torch.tensor([lm.codec.encode(prompt)])}
