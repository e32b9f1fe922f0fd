"""``train mend`` and ``train ke``, and ``locate``, on a tiny model from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import app
from editors.registry import get_editor
from editors.statistics import MomentStore
from language_model.model import LanguageModel
from language_model.tiny import tiny_model
from tests.editors.helpers import capital_edit, train_tiny


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    lm = tiny_model("gpt2", chat=True, seed=3)
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


def run(*arguments: str) -> Any:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("kind", ["mend", "ke"])
def test_a_network_is_trained_measured_and_found_by_its_editor(kind: str, saved: Path, tmp_path: Path) -> None:
    lm = LanguageModel.load(str(saved))
    options = ("--model", str(saved), "--data", str(tmp_path), "--lessons", "1", "--json")
    found = run("train", kind, *options, "--minutes", "0.05", "--held-out", "2")
    assert found["steps"] >= 1
    assert [figure["together"] for figure in found["held_out"]] == [1, 10]
    assert Path(found["path"]).parent == tmp_path / "statistics"
    editor = get_editor(kind, moments=MomentStore(cache_dir=tmp_path / "statistics"), refuse_known=False)
    assert editor.edit(lm, [capital_edit("France", "Oslo")])
    again = run("train", kind, *options, "--minutes", "0.05", "--held-out", "0")
    assert again["steps"] == found["steps"]  # the time is spent: nothing is trained again
    assert again["held_out"] == []


def test_locate_prints_keeps_and_draws(pytestconfig: pytest.Config, tmp_path: Path) -> None:
    folder = Path(pytestconfig.cache.mkdir("tiny-trained"))
    train_tiny(folder)
    model = max(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    facts = tmp_path / "known.json"
    record = {"known_id": 0, "subject": "France", "attribute": "Paris", "prompt": "The capital of France is"}
    facts.write_text(json.dumps([record]))
    options = ("--model", str(model), "--data", str(tmp_path), "--facts", str(facts), "--samples", "1", "--json")
    found = run("locate", *options, "--plot", str(tmp_path / "trace.png"))
    assert found["facts"] == 1
    assert found["published"] is None
    assert Path(found["kept"]).is_file()
    assert (tmp_path / "trace.png").stat().st_size > 1000
    facts.write_text("[{}]")
    bad = CliRunner().invoke(app, ["locate", *options])
    assert bad.exit_code == 2
    assert "cannot be read as facts" in bad.output
