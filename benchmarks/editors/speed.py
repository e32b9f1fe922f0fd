"""``speed``: seconds and memory beside the plain way or a peer, at the same result."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.editors.cases import drawn
from benchmarks.editors.kept_rows import KeptRows
from benchmarks.editors.options import given_settings, measured
from benchmarks.editors.peak_memory import PeakMemory
from benchmarks.editors.peers import check_peer, run_peer
from benchmarks.editors.plain import plain_memit, plain_r_rome
from benchmarks.table import show
from editors.compacting import compacted
from editors.registry import get_editor
from editors.statistics import MomentStore
from language_model.model import LanguageModel
from language_model.overlay import Overlay

PLAIN: dict[str, Callable[..., Overlay]] = {"r-rome": plain_r_rome, "memit": plain_memit}


def speed(lm: LanguageModel, options: argparse.Namespace) -> None:
    """Ours beside the plain way, or a peer's; each cell in a process of its own, so that its peak memory is its own."""
    if options.peer is not None:
        check_peer(options.peer, options.methods or list(PLAIN))
    rows = KeptRows(options.keep, measured(options, lm, "plain_most", "peer", "completions"))
    other = "peer" if options.peer is not None else "plain"
    names = []
    for method in options.methods or list(PLAIN):
        for size in options.sizes:
            names.append(f"{method} {size}")
            if rows.has(names[-1]):
                continue
            cells: dict[str, dict[str, Any]] = {"ours": _in_own_process(options, method, size, "ours")}
            if options.peer is not None:
                edits = drawn(size, seed=options.seed, questions=not options.completions)
                moments = MomentStore(cache_dir=options.cache)
                cells[other] = run_peer(options.peer, method, lm, edits, moments, threads=options.threads)
            elif method in PLAIN and size <= options.plain_most:
                cells[other] = _in_own_process(options, method, size, other)
            rows.add(names[-1], _speed_row(method, size, cells["ours"], cells.get(other)))
    times = ("s per edit", other, "times faster", f"dW apart from {other}")
    columns = ("method", "edits", *times, "peak MiB", "estimated", other)
    note = f"{options.model}; second moments kept from before; peak and estimated memory above the loaded model's"
    show("Seconds per edit", columns, [rows.cells(name) for name in names], as_json=options.json, note=note)


def _speed_row(method: str, size: int, ours: dict[str, Any], other: dict[str, Any] | None) -> list[Any]:
    """One row of figures; the files with the changes are removed."""
    row = [method, size, f"{ours['seconds'] / size:.3f}"]
    if other is None:
        Path(ours["file"]).unlink()
        return [*row, "-", "-", "-", f"{ours['peak']:.0f}", f"{ours['estimate']:.0f}", "-"]
    gap = _gap(ours["file"], other["file"])
    row += [f"{other['seconds'] / size:.3f}", f"{other['seconds'] / ours['seconds']:.1f}", f"{100 * gap:.2f} %"]
    return [*row, f"{ours['peak']:.0f}", f"{ours['estimate']:.0f}", f"{other['peak']:.0f}"]


def _in_own_process(options: argparse.Namespace, method: str, size: int, way: str) -> dict[str, Any]:
    arguments = ["cell", "--model", options.model, "--cache", str(options.cache), "--method", method]
    arguments += ["--size", str(size), "--way", way, "--seed", str(options.seed)]
    arguments += ["--threads", str(options.threads), *(["--completions"] if options.completions else [])]
    arguments += ["--set", *options.set] if options.set else []
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.editors", *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return found


def cell(lm: LanguageModel, options: argparse.Namespace) -> None:
    """One measurement: prints seconds, peak memory above the loaded model and its estimate, a file with the change."""
    edits = drawn(options.size, seed=options.seed, questions=not options.completions)
    moments = MomentStore(cache_dir=options.cache)
    once = {"repair": 0} if options.method == "r-rome" else {}  # the plain way does not look at what it has done
    changed = {**once, **given_settings(options.method, options.set)}
    editor = get_editor(options.method, moments=moments, refuse_known=False, **changed)
    settings = editor.settings(lm)
    estimate = editor.footprint(lm, edits, settings).total / 2**20
    memory = PeakMemory()
    # First calls of the libraries are no cost of an edit.
    editor.edit(lm, drawn(1, seed=99, questions=not options.completions))
    start = time.perf_counter()
    overlay = editor.edit(lm, edits) if options.way == "ours" else PLAIN[options.method](lm, edits, settings, moments)
    seconds = time.perf_counter() - start
    peak = memory.stop() / 2**20
    handle = tempfile.NamedTemporaryFile(suffix=".safetensors", delete=False)  # noqa: SIM115
    handle.close()
    compacted(overlay).save(handle.name)
    print(json.dumps({"seconds": seconds, "peak": peak, "estimate": estimate, "file": handle.name}))


def _gap(ours: str, plain: str) -> float:
    """|dW - dW'| / |dW| over all modules; the files are removed."""
    one, other = (Overlay.load(path) for path in (ours, plain))
    apart = whole = 0.0
    for name in one.modules:
        a, b = one.delta(name), other.delta(name)
        assert a is not None
        assert b is not None
        apart += float((a.double() - b.double()).square().sum())
        whole += float(a.double().square().sum())
    for path in (ours, plain):
        Path(path).unlink()
    return float((apart / max(whole, 1e-300)) ** 0.5)
