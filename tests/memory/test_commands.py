"""What the command line has of the edit memory beside its commands on facts."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from app.cli import app
from app.commands.asking import _STRATEGIES
from app.engine import Engine
from app.settings import Settings
from memory.counterfactual import SHIPPED, Case, Counterfactual
from memory.embedder import Embedder
from memory.registry import available


def test_serac_is_trained_and_measured(tmp_path: Path, minilm: Embedder) -> None:
    before, path = SHIPPED.read_bytes(), tmp_path / "pointer.safetensors"
    options = ["--output", str(path), "--each", "1", "--held-out", "1", "--json"]
    result = CliRunner().invoke(app, ["train", "serac", *options])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["path"] == str(path)
    assert found["held_out"]["object"]["n"] > 30
    assert found["held_out"]["object"]["rate"] > 0.7
    asked = Case("Is Big Ben in Oslo?", "Big Ben", "Rome")
    assert Counterfactual.load(path, minilm).answer(asked) in ("Yes", "No", "Rome", "Big Ben")
    assert SHIPPED.read_bytes() == before


def test_the_help_names_every_strategy() -> None:
    assert all(f"{entry.name} (" in _STRATEGIES for entry in available())


def test_the_size_at_which_the_index_changes_is_a_setting(tmp_path: Path) -> None:
    engine = Engine(Settings(data=tmp_path, index_switch=5_000))
    assert engine.store.sync.switch == 5_000
    engine.close()
