"""The editor benchmark on tiny models: the plain way gives the same change, and every part prints its table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.editors import __main__ as bench
from benchmarks.editors.cases import drawn, outcomes
from benchmarks.editors.plain import plain_memit, plain_r_rome
from editors.hypernetwork_data import is_held_out
from editors.registry import get_editor
from editors.statistics import MomentStore
from language_model.model import LanguageModel
from tests.editors.helpers import capital_edit, corpus, train_tiny


@pytest.fixture(scope="module")
def lm(pytestconfig: pytest.Config) -> LanguageModel:
    return train_tiny(Path(pytestconfig.cache.mkdir("tiny-trained")))


@pytest.fixture
def moments(tmp_path: Path) -> MomentStore:
    return MomentStore(corpus=corpus(), cache_dir=tmp_path)


@pytest.mark.parametrize("method", ["r-rome", "memit"])
def test_the_plain_way_comes_to_the_same_change(method: str, lm: LanguageModel, moments: MomentStore) -> None:
    once = {"repair": 0} if method == "r-rome" else {}
    editor = get_editor(method, moments=moments, refuse_known=False, prefixes=2, **once)
    edits = [capital_edit("France", "Oslo"), capital_edit("Peru", "Cairo")]
    plain = {"r-rome": plain_r_rome, "memit": plain_memit}[method](lm, edits, editor.settings(lm), moments)
    ours = editor.edit(lm, edits)
    for name in ours.modules:
        one, other = ours.delta(name), plain.delta(name)
        assert one is not None
        assert other is not None
        assert float((one - other).norm()) < 0.01 * float(one.norm())


def test_cases_are_the_same_for_the_same_seed() -> None:
    first, again = drawn(5, seed=1), drawn(5, seed=1)
    assert [edit.statement for edit in first] == [edit.statement for edit in again]
    assert all(is_held_out(edit.subject) for edit in drawn(5, held_out=True))
    assert all(edit.target_new != edit.target_true for edit in first)


def test_outcomes_are_measured_under_each_edits_own_overlay(lm: LanguageModel) -> None:
    edits = [capital_edit("France", "Oslo"), capital_edit("Peru", "Cairo")]
    overlays = [get_editor("ft-m", refuse_known=False, steps=100).edit(lm, [edit]) for edit in edits]
    found = outcomes(lm, edits, overlays)
    assert found.every_form == [True, True]
    assert outcomes(lm, edits, overlays[::-1]).every_form == [False, False]
    assert all(outcomes(lm, edits, [None, None]).locality)


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", "--facts", "2", "--methods", "ft-m", "mend"],
        ["table", "--facts", "2", "--methods", "ft-m", "--together"],
        ["moments", "--tokens", "300", "900", "--facts", "1"],
        ["sequence", "--edits", "4", "--every", "2", "--locality", "3", "--methods", "ft-m"],
    ],
)
def test_each_part_prints_its_table(
    arguments: list[str],
    lm: LanguageModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(bench, "load", lambda name: lm)
    monkeypatch.setattr(sys, "argv", ["benchmarks.editors", *arguments, "--cache", str(tmp_path)])
    if arguments[0] != "table":
        sys.argv += ["--plot", str(tmp_path / "plot.png")]
    bench.main()
    shown = capsys.readouterr().out
    assert "| FT-M |" in shown or "| ft-m |" in shown or "| 300 |" in shown
    if "mend" in arguments:
        assert "trained once for each model" in shown
    if arguments[0] != "table":
        assert list(tmp_path.glob("plot*.png"))


def test_a_speed_row_has_ours_and_the_plain_way_with_the_same_change(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "load", lambda name: lm)

    def here(options: argparse.Namespace, method: str, size: int, way: str) -> dict[str, Any]:
        """A cell in this process: another one would load another model."""
        cell = bench.parser().parse_args(["cell", "--method", method, "--size", str(size), "--way", way])
        for name in ("cache", "set", "completions"):
            setattr(cell, name, getattr(options, name))
        cell.run(lm, cell)
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    monkeypatch.setattr("benchmarks.editors.speed._in_own_process", here)
    arguments = ["speed", "--methods", "memit", "--sizes", "1", "2", "--plain-most", "1", "--completions", "--json"]
    arguments += ["--set", "prefixes=1", "--cache", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["benchmarks.editors", *arguments])
    bench.main()
    one, two = json.loads(capsys.readouterr().out)["rows"]
    assert float(one["dW apart from plain"].rstrip(" %")) < 1
    assert float(one["plain"]) > 0
    assert (two["edits"], two["plain"]) == (2, "-")
    assert float(two["peak MiB"]) >= 0
    assert float(two["estimated"]) > 0
