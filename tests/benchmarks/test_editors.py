"""The editor benchmark on tiny models: the plain way gives the same change, and every part prints its table."""

from __future__ import annotations

import sys
from pathlib import Path

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
