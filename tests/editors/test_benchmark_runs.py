"""Long measurements: rows are kept and gone on from, methods are bounded, and a peer's own code is run beside ours."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.editors import __main__ as bench
from benchmarks.editors.cases import drawn
from benchmarks.editors.kept_rows import KeptRows
from benchmarks.editors.peers import PeerFailed, check_peer, run_peer
from editors.statistics import MomentStore
from knowledge.errors import InvalidInput
from language_model.model import LanguageModel
from language_model.overlay import Overlay
from tests.editors.helpers import corpus

Run = Any


@pytest.fixture
def run(
    trained: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Runs a part of the benchmark; gives its rows, and what it told on the way."""
    monkeypatch.setattr(bench, "load", lambda name: trained)

    def go(*arguments: str) -> tuple[list[dict[str, Any]], str]:
        monkeypatch.setattr(sys, "argv", ["benchmarks.editors", *arguments, "--cache", str(tmp_path), "--json"])
        bench.main()
        said = capsys.readouterr()
        return json.loads(said.out)["rows"], said.err

    return go


def test_rows_are_kept_for_the_same_measurement_only(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "rows.jsonl"
    KeptRows(path, {"facts": 2}).add("rome", ["ROME", 1])
    with path.open("a") as file:
        file.write('{"key": "torn')  # stopped while it wrote
    again, other = KeptRows(path, {"facts": 2}), KeptRows(path, {"facts": 3})
    assert again.has("rome")
    assert again.cells("rome") == ["ROME", 1]
    assert not other.has("rome")
    assert again.beside("rome") != other.beside("rome")
    assert KeptRows(None, {}).beside("rome") is None
    with pytest.raises(InvalidInput, match="--keep"):
        KeptRows(tmp_path, {})


def test_a_table_goes_on_where_it_was_stopped(run: Run, tmp_path: Path) -> None:
    keep = ("--keep", str(tmp_path / "rows.jsonl"), "--facts", "2")
    first, told = run("table", *keep, "--methods", "ft-m")
    assert "ft-m | FT-M | 2" in told
    both, told = run("table", *keep, "--methods", "ft-m", "ft-l", "--set")
    assert both[0] == first[0]
    assert "ft-m" not in told
    assert "ft-l" in told
    changed, told = run("table", *keep, "--methods", "ft-m", "--set", "steps=1", "slots=8")
    assert "ft-m" in told  # other settings are another measurement
    assert changed[0]["facts"] == 2


def test_a_method_is_bounded_and_says_how_many_facts_it_did(run: Run) -> None:
    rows, _ = run("table", "--facts", "3", "--methods", "ft-m", "--limit", "0.000001")
    assert rows[0]["facts"] == 1


def test_a_sequence_goes_on_from_its_last_point(run: Run, tmp_path: Path) -> None:
    common = ("--edits", "4", "--every", "2", "--locality", "3", "--methods", "ft-m")
    whole, _ = run("sequence", *common)
    keep = ("--keep", str(tmp_path / "rows.jsonl"))
    part, _ = run("sequence", *common, *keep, "--limit", "0.000001")
    assert [row["edits"] for row in part] == [1]
    rest, told = run("sequence", *common, *keep)
    assert [row["edits"] for row in rest] == [1, 2, 4]
    assert "ft-m 1 |" not in told
    figures = ("hold in both forms, all so far", "other answers as before", "dW to W")
    assert [[row[name] for name in figures] for row in rest[1:]] == [[row[name] for name in figures] for row in whole]


@pytest.mark.parametrize("setting", ["prefixes", "prefixes=five"])
def test_a_setting_that_is_none_is_refused(run: Run, setting: str) -> None:
    with pytest.raises(SystemExit, match="is no setting"):
        run("table", "--facts", "1", "--methods", "r-rome", "--set", setting)


# ------------------------------------------------------------------------------------------------------- peers

MAIN = '''
import torch
from {imports} import layer_stats
from {hparams} import MEMITHyperParams

def apply_memit_to_model(model, tok, requests, hparams, copy=False, return_orig_weights=False):
    """Moves one weight by an amount that is made of everything that it was given."""
    name = hparams.rewrite_module_tmp.format(hparams.layers[-1])
    moment = layer_stats(model, tok, name, "stats", hparams.mom2_dataset, to_collect=["mom2"]).mom2.moment()
    weight = dict(model.named_parameters())[name + ".weight"]
    with torch.no_grad():
        count = torch.tensor(len(requests), device="cuda:0") + torch.zeros(1).to("cuda:0")[0]  # as both peers do
        weight[0, 0] += count + moment.shape[0]
        weight[1, 0] += hparams.v_num_grad_steps
    assert all("{{}}" in request["prompt"] for request in requests)
    assert all(request["target_new"]{target} for request in requests)
    return model, {{}}
'''
HPARAMS = """
from dataclasses import dataclass

@dataclass
class MEMITHyperParams:
    layers: list
    rewrite_module_tmp: str
    v_num_grad_steps: int
    mom2_dataset: str
    {more}
"""


def stand_in(folder: Path, layout: str, more: str = "alg: int = 0") -> Path:
    """A package of the peer's layout with its entry points, and a change that can be foretold."""
    root = folder / ("easyeditor/models" if layout == "EasyEdit" else ".")
    for name in ("memit", "rome"):
        (root / name).mkdir(parents=True)
        (root / name / "__init__.py").write_text("")
    (root / "rome" / "layer_stats.py").write_text(
        "def layer_stats(*given, **named):\n    raise OSError('no Wikipedia')\n"
    )
    if layout == "EasyEdit":
        for around in (folder / "easyeditor", root):  # EasyEdit's load all that it can do
            (around / "__init__.py").write_text("raise ImportError('a dozen further packages')\n")
    imports = "..rome.layer_stats" if layout == "EasyEdit" else "rome.layer_stats"
    target = ".strip()" if layout == "EasyEdit" else '["str"]'
    (root / "memit" / "memit_main.py").write_text(MAIN.format(imports=imports, hparams=".memit_hparams", target=target))
    (root / "memit" / "memit_hparams.py").write_text(HPARAMS.format(more=more))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> MomentStore:
    return MomentStore(corpus=corpus(), cache_dir=tmp_path / "moments")


@pytest.mark.parametrize("layout", ["EasyEdit", "memit"])
def test_a_peers_own_code_is_run_on_the_same_edits(
    layout: str, trained: LanguageModel, store: MomentStore, tmp_path: Path
) -> None:
    peer = stand_in(tmp_path / "peer", layout)
    assert check_peer(peer, ["memit"]) == layout
    found = run_peer(peer, "memit", trained, drawn(3), store)
    assert found["seconds"] > 0
    change = Overlay.load(found["file"])
    Path(found["file"]).unlink()
    (name,) = change.modules
    delta = change.delta(name)
    assert delta is not None
    assert float(delta[0, 0]) == pytest.approx(3 + 256)  # edits, and the width of our second moments
    assert float(delta[1, 0]) == pytest.approx(80)  # our steps for a shallow model
    assert int((delta.abs() > 1e-6).sum()) == 2


def test_what_a_peer_lacks_is_said(trained: LanguageModel, store: MomentStore, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no checkout of EasyEdit or of memit"):
        check_peer(tmp_path, ["memit"])
    peer = stand_in(tmp_path / "peer", "EasyEdit", more="temperature: float")
    with pytest.raises(InvalidInput, match="has no r-rome"):
        check_peer(peer, ["memit", "r-rome"])
    edits = drawn(1)
    with pytest.raises(PeerFailed, match="settings that we do not know: temperature"):
        run_peer(peer, "memit", trained, edits, store)
    main = peer / "easyeditor" / "models" / "memit" / "memit_main.py"
    main.write_text(main.read_text().replace("import torch", "import torch, hydra_of_nowhere"))
    with pytest.raises(PeerFailed, match="needs the module 'hydra_of_nowhere'"):
        run_peer(peer, "memit", trained, edits, store)
