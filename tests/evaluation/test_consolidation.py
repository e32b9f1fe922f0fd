"""Facts that memory serves are written into the weights, and stay there only where they prove good."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from sqlalchemy import create_engine

from editors.base import Editor, EditRefused, Hparams, Job
from editors.ledger import WeightLedger
from editors.registry import get_editor
from editors.statistics import MomentStore
from evaluation.consolidation import Limits, consolidate
from knowledge.edit import Edit
from knowledge.errors import InvalidInput
from knowledge.world import load_world
from language_model.model import LanguageModel
from language_model.overlay import LowRank, Overlay
from tests.editors.helpers import capital_edit, corpus, train_tiny

EASY = Limits(efficacy=0.5, generality=0.0, drop=1.0, sample=6)


class Noise(Editor[Hparams]):
    """Breaks the model: what consolidation has to notice."""

    name: ClassVar[str] = "noise"
    title: ClassVar[str] = "Noise"
    paper: ClassVar[str] = ""

    def compute(self, job: Job, settings: Hparams) -> Overlay:
        generator = torch.Generator().manual_seed(0)
        u, v = (torch.randn(shape, generator=generator) for shape in ((256, 2), (2, 64)))
        return Overlay({job.lm.architecture.down(1): (LowRank(u, v),)})


@pytest.fixture(scope="module")
def lm(pytestconfig: pytest.Config) -> LanguageModel:
    return train_tiny(Path(pytestconfig.cache.mkdir("tiny-trained")))


@pytest.fixture
def ledger(lm: LanguageModel, tmp_path: Path) -> WeightLedger:
    return WeightLedger(create_engine(f"sqlite:///{tmp_path / 'state.sqlite'}"), lm, tmp_path / "weights")


@pytest.fixture(scope="module")
def editor() -> Editor[Any]:
    return get_editor("ft-m", moments=MomentStore(corpus=corpus()), steps=100)


def said(lm: LanguageModel, ledger: WeightLedger, edits: Sequence[Edit]) -> list[str]:
    prompts = [lm.chat(edit.question or "") for edit in edits]
    return lm.generate(prompts, overlays=[ledger.overlay()] * len(prompts), max_new_tokens=6)


def test_a_good_batch_stays(lm: LanguageModel, ledger: WeightLedger, editor: Editor[Any]) -> None:
    edits = [capital_edit("France", "Oslo"), capital_edit("Peru", "Cairo")]
    found = consolidate(ledger, editor, edits, load_world(), limits=EASY)
    assert found.kept
    assert found.reasons == ()
    assert found.written == tuple(edits)
    assert found.efficacy is not None
    assert found.efficacy >= 0.5
    assert [entry.id for entry in ledger.entries()] == [found.entry]
    assert said(lm, ledger, edits) == ["Oslo", "Cairo"]
    assert found.to_json()["written"] == [edit.statement for edit in edits]


def test_a_bad_batch_is_undone(lm: LanguageModel, ledger: WeightLedger) -> None:
    before = ledger.overlay()
    found = consolidate(ledger, Noise(), [capital_edit("France", "Oslo")], load_world())
    assert not found.kept
    assert "own probes" in " ".join(found.reasons)
    assert found.failed
    assert ledger.entries() == []
    assert ledger.get(found.entry or 0).undone
    assert not ledger.overlay()
    assert not before


def test_lost_locality_alone_undoes_a_batch(ledger: WeightLedger, editor: Editor[Any]) -> None:
    limits = Limits(efficacy=0.0, generality=0.0, drop=-1.0, sample=6)
    found = consolidate(ledger, editor, [capital_edit("France", "Oslo")], load_world(), limits=limits)
    assert not found.kept
    assert "other answers changed" in found.reasons[0]


def test_what_the_weights_say_already_is_left_out(ledger: WeightLedger, editor: Editor[Any]) -> None:
    edits = [capital_edit("France", "Paris"), capital_edit("Peru", "Cairo"), capital_edit("peru", "Oslo")]
    found = consolidate(ledger, editor, edits, load_world(), limits=EASY)
    assert found.known == (edits[0],)
    assert found.clashing == (edits[2],)
    assert found.written == (edits[1],)
    nothing = consolidate(ledger, editor, edits[:1], load_world())
    assert not nothing.kept
    assert nothing.entry is None


def test_a_failure_leaves_the_ledger(
    ledger: WeightLedger, editor: Editor[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InvalidInput, match="no fact to consolidate"):
        consolidate(ledger, editor, [], load_world())

    def stop(share: float, what: str) -> None:
        if what.startswith("asking other"):
            raise EditRefused("stopped")

    with pytest.raises(EditRefused, match="stopped"):
        consolidate(ledger, editor, [capital_edit("France", "Oslo")], load_world(), limits=EASY, progress=stop)
    assert not ledger.overlay()


def test_what_was_not_asked_is_not_proven(
    lm: LanguageModel, ledger: WeightLedger, editor: Editor[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.consolidation.LocalitySample.measure", lambda *_, **__: None)
    loose = Limits(efficacy=0.0, generality=0.0, drop=1.0, sample=4)
    found = consolidate(ledger, editor, [capital_edit("France", "Oslo")], load_world(), limits=loose)
    assert not found.kept
    assert "is not known" in found.reasons[0]
    assert not ledger.overlay()
