"""Which layer an editor takes in a model that no paper tuned: a causal trace's where one is stored. And it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from editors.ledger import WeightLedger
from editors.located import Located, load_located, save_located
from editors.registry import get_editor
from editors.statistics import MomentStore
from language_model.model import LanguageModel
from language_model.tiny import tiny_model
from tests.editors.helpers import capital_edit, corpus

DEPTH = 6


@pytest.fixture(scope="module")
def deep() -> LanguageModel:
    return tiny_model("gpt2", n_layer=DEPTH, seed=2)


def traced(lm: LanguageModel, folder: Path, best: int, effect: float = 0.3) -> Path:
    """Stores a trace whose feed-forwards matter most at layer ``best``."""
    rows = [[0.0, effect if layer == best else 0.0, 0.0, 0.0] for layer in range(lm.num_layers)]
    effects = {"feed-forward": rows}
    return save_located(Located(lm.name, lm.fingerprint, 7, 3.0, 1, 0.9, 0.2, effects), folder)


def at(name: str, lm: LanguageModel, folder: Path, **overrides: Any) -> tuple[tuple[int, ...], str]:
    editor = get_editor(name, moments=MomentStore(corpus=corpus(), cache_dir=folder), **overrides)
    settings = editor.settings(lm)
    layers = getattr(settings, "layers", None) or (settings.layer,)
    return layers, editor.layer_source(lm)


@pytest.mark.parametrize(
    ("name", "ruled", "found"),
    [
        ("rome", (3,), (2,)),
        ("r-rome", (3,), (2,)),
        ("emmet", (3,), (2,)),
        ("memit", (1, 2, 3), (0, 1, 2)),
        ("alphaedit", (1, 2, 3), (0, 1, 2)),
    ],
)
def test_a_stored_trace_comes_before_the_rule(
    name: str, ruled: tuple[int, ...], found: tuple[int, ...], deep: LanguageModel, tmp_path: Path
) -> None:
    layers, said = at(name, deep, tmp_path)
    assert layers == ruled
    assert "derived by rule, half of the depth" in said
    assert "has not been traced (python -m app locate" in said
    traced(tiny_model("gpt2", n_layer=DEPTH, seed=3), tmp_path, best=4)
    assert at(name, deep, tmp_path)[0] == ruled  # another model's trace
    traced(deep, tmp_path, best=2)
    layers, said = at(name, deep, tmp_path)
    assert layers == found
    assert said.endswith("layer from causal tracing of this model (7 facts).")


def test_a_trace_that_found_nothing_or_is_damaged_leaves_the_rule(deep: LanguageModel, tmp_path: Path) -> None:
    path = traced(deep, tmp_path, best=2, effect=0.01)
    layers, said = at("r-rome", deep, tmp_path)
    assert layers == (3,)
    assert "was traced, but nothing came back at the subject" in said
    path.write_text(path.read_text().replace(deep.fingerprint, "0" * 64))
    assert load_located(deep, tmp_path) is None
    path.write_text('{"effects": []}')
    assert at("r-rome", deep, tmp_path)[0] == (3,)


def test_what_is_set_wins_and_other_methods_name_their_rule(deep: LanguageModel, tmp_path: Path) -> None:
    traced(deep, tmp_path, best=2)
    assert at("r-rome", deep, tmp_path, layer=1) == ((1,), "Layer 1, as set.")
    assert at("ft-m", deep, tmp_path) == ((3,), "Layer 3: derived by rule, two thirds of the depth.")
    assert get_editor("kn").layer_source(deep) == ""
    shape = tiny_model("gpt2", n_layer=12, n_embd=768, n_head=12)
    assert at("r-rome", shape, tmp_path) == (
        (5,),
        "Layer 5: ours for gpt2, at the depth of the published settings for other models.",
    )


def test_an_edit_says_and_the_ledger_keeps_where_its_layer_comes_from(deep: LanguageModel, tmp_path: Path) -> None:
    traced(deep, tmp_path, best=2)
    editor = get_editor(
        "r-rome", moments=MomentStore(corpus=corpus(), cache_dir=tmp_path), refuse_known=False, prefixes=1
    )
    ledger = WeightLedger(create_engine(f"sqlite:///{tmp_path / 'state.sqlite'}"), deep, tmp_path / "weights")
    told: list[str] = []
    entry = ledger.apply(editor, [capital_edit("France", "Oslo")], progress=lambda share, what: told.append(what))
    assert entry.layers == (2,)
    assert "from causal tracing" in told[0]
    assert entry.layer_source == told[0] == ledger.entries()[0].to_json()["layer_source"]
    assert ledger.undo(entry.id).layer_source == told[0]
