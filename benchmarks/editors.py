"""What the weight editors cost and what they hold, in four parts that run alone:

    python -m benchmarks.editors table --facts 100            # every method: efficacy, generality, locality, seconds
    python -m benchmarks.editors speed --sizes 1 10 100       # ours beside the plain way, same result
    python -m benchmarks.editors moments                      # how much text the second moments need
    python -m benchmarks.editors sequence --edits 1000        # one after another, ALL earlier edits asked again

Each prints its table with command, machine and date, and every row to stderr as soon as it is done.
--keep FILE        rows are kept there, and a run that was stopped goes on where it was
--limit SECONDS    bounds a method in ``table`` and ``sequence``
--set prefixes=5   another setting, for the methods that have it
--model gpt2-size  random weights in the shape of GPT-2 small
--peer PATH        ``speed`` compares with a checkout of EasyEdit or of memit
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from benchmarks.edit_cases import LOCALITY, Exam, answers, drawn, load
from benchmarks.kept_rows import KeptRows
from benchmarks.peak_memory import PeakMemory
from benchmarks.peers import check_peer, run_peer
from benchmarks.plain_editing import plain_memit, plain_r_rome
from benchmarks.table import rate, show
from editors.base import EditRefused
from editors.compacting import compacted
from editors.guard import LocalitySample
from editors.registry import available, get_editor
from editors.statistics import MomentStore
from knowledge.edit import Edit
from knowledge.errors import InvalidInput, PalimpsestError
from knowledge.probes import Amounts, probes_for
from knowledge.world import load_world
from language_model.model import LanguageModel
from language_model.overlay import Overlay

PLAIN: dict[str, Callable[..., Overlay]] = {"r-rome": plain_r_rome, "memit": plain_memit}


def table(options: argparse.Namespace) -> None:
    """Every method on the same facts: each fact edited alone, or all of them in one call."""
    lm, edits = load(options.model), drawn(options.facts, seed=options.seed, held_out=True)
    exam, moments = Exam(lm, edits, seed=options.seed), MomentStore(cache_dir=options.cache)
    rows = KeptRows(options.keep, _what(options, lm, "facts", "together", "limit", "kinds"))
    names = options.methods or list(available())
    held = ("holds in both forms", "efficacy", "generality", "locality (as before)")
    columns = ("method", "facts", *held, *(LOCALITY.values() if options.kinds else ()), "s per edit")
    for name in names:
        if rows.has(name):
            continue
        editor = get_editor(name, moments=moments, refuse_known=False, **_settings(name, options.set))
        start = time.perf_counter()
        overlays: list[Overlay] = []
        try:
            if options.together:
                overlays = [editor.edit(lm, edits)] * len(edits)
            while len(overlays) < len(edits):
                overlays.append(editor.edit(lm, [edits[len(overlays)]]))
                if options.limit and time.perf_counter() - start > options.limit:
                    break
        except EditRefused as error:
            blank = [""] * (len(columns) - 2)
            rows.add(name, [editor.title, str(error).split(". ")[0], *blank], final=False)
            continue
        seconds = (time.perf_counter() - start) / len(overlays)
        found = exam.taken(overlays)
        rates = [rate(flags) for flags in (found.every_form, found.efficacy, found.generality, found.locality)]
        rates += [rate(found.kinds[kind]) for kind in LOCALITY] if options.kinds else []
        rows.add(name, [editor.title, len(overlays), *rates, f"{seconds:.2f}"])
    how = "in one call" if options.together else "each alone"
    show(
        f"Editors on {options.model}",
        columns,
        [rows.cells(name) for name in names],
        as_json=options.json,
        note=f"{len(edits)} facts, {how}, generation",
    )


def _what(options: argparse.Namespace, lm: LanguageModel, *names: str) -> dict[str, Any]:
    """What a kept row must have in common with this run to be used in it."""
    chosen = {name: getattr(options, name) for name in ("seed", "set", *names)}
    return {"part": options.run.__name__, "model": lm.fingerprint, **chosen}


def _settings(method: str, given: list[str]) -> dict[str, Any]:
    """``--set NAME=VALUE`` as settings, for the methods that have one of that name; values as JSON.

    Raises:
        InvalidInput: not of that form.
    """
    known = {item.name for item in fields(get_editor(method).Settings)}
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        try:
            parsed = json.loads(value)
        except ValueError:
            equals = ""
        if not equals:
            raise InvalidInput(f"{text!r} is no setting. Write NAME=VALUE with a number or true, such as prefixes=5.")
        if name in known:
            found[name] = tuple(parsed) if isinstance(parsed, list) else parsed
    return found


# ------------------------------------------------------------------------------------------------------- speed


def speed(options: argparse.Namespace) -> None:
    """Ours beside the plain way, or a peer's; each cell in a process of its own, so that its peak memory is its own."""
    lm = load(options.model)
    if options.peer is not None:
        check_peer(options.peer, options.methods or list(PLAIN))
    rows = KeptRows(options.keep, _what(options, lm, "plain_most", "peer", "completions"))
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
                cells[other] = run_peer(options.peer, method, lm, edits, MomentStore(cache_dir=options.cache))
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
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.editors", *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return found


def cell(options: argparse.Namespace) -> None:
    """One measurement: prints seconds, peak memory above the loaded model and its estimate, a file with the change."""
    lm, edits = load(options.model), drawn(options.size, seed=options.seed, questions=not options.completions)
    moments = MomentStore(cache_dir=options.cache)
    once = {"repair": 0} if options.method == "r-rome" else {}  # the plain way does not look at what it has done
    editor = get_editor(options.method, moments=moments, refuse_known=False, **once)
    settings = editor.settings(lm)
    estimate = editor.footprint(lm, edits, settings).total / 2**20
    memory = PeakMemory()
    editor.edit(
        lm, drawn(1, seed=99, questions=not options.completions)
    )  # first calls of the libraries are no cost of an edit
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


# ------------------------------------------------------------------------------------------------------- moments


def moments(options: argparse.Namespace) -> None:
    """Edit quality against the number of tokens that the second moments are made of."""
    lm, edits = load(options.model), drawn(options.facts, seed=options.seed)
    exam = Exam(lm, edits, seed=options.seed)
    rows = KeptRows(options.keep, _what(options, lm, "facts", "method", "tokens"))
    finest = MomentStore(sample_tokens=max(options.tokens))
    finest_seconds = 0.0
    for count in sorted(options.tokens):
        if rows.has(str(count)):
            continue
        store = finest if count == max(options.tokens) else MomentStore(sample_tokens=count)
        store.prefixes = finest.prefixes  # they do not depend on the sample
        editor = get_editor(options.method, moments=store, refuse_known=False, **_settings(options.method, options.set))
        settings = editor.settings(lm)
        layers = list(getattr(settings, "layers", None) or [settings.layer])
        start = time.perf_counter()
        best = finest.get(lm, layers)  # every row is compared with it; from the second on it is there
        finest_seconds = finest_seconds or time.perf_counter() - start
        start = time.perf_counter()
        taken = store.get(lm, layers)
        seconds = finest_seconds if store is finest else time.perf_counter() - start
        apart = max(float((taken[x].matrix - best[x].matrix).norm() / best[x].matrix.norm()) for x in layers)
        found = exam.taken([editor.edit(lm, [edit]) for edit in edits])
        flags = (found.every_form, found.generality, found.locality)
        cells = [count, f"{seconds:.1f}", f"{taken[layers[-1]].shrinkage:.3f}", f"{apart:.3f}", *map(rate, flags)]
        rows.add(str(count), [*cells, *(sum(x) / len(x) for x in flags)])
    every = [rows.cells(str(count)) for count in sorted(options.tokens)]
    points = [(row[0], *row[-3:]) for row in every]
    columns = ("tokens", "seconds", "shrinkage", "|C - C'| / |C'|", "holds in both forms", "generality", "locality")
    note = f"{options.model}, {options.method}, {len(edits)} facts each alone; C' from {max(options.tokens)} tokens"
    show(
        "Second moments and the quality of edits", columns, [row[:-3] for row in every], as_json=options.json, note=note
    )
    if options.plot:
        _plot(options.plot, points, "tokens of text", ("holds in both forms", "generality", "locality"), log=True)


# ------------------------------------------------------------------------------------------------------ sequence


def sequence(options: argparse.Namespace) -> None:
    """Edits one after another (or in batches), and how many of ALL made so far still hold."""
    lm, edits = load(options.model), drawn(options.edits, seed=options.seed)
    kept, rows = KeptRows(options.keep, _what(options, lm, "edits", "batch", "every", "locality", "wordings")), []
    for name in options.methods or ["r-rome", "alphaedit", "rome"]:
        points = _run_sequence(lm, name, edits, options, kept)
        rows += points
        if options.plot:
            numbers = [(row[1], row[-2], row[-1]) for row in points]
            path = options.plot.with_stem(f"{options.plot.stem}-{name}")
            _plot(path, numbers, "edits", ("retention", "locality"))
    held = ("hold in both forms, all so far", "in other wordings", "other answers as before")
    columns = ("method", "edits", *held, "dW to W", "s per edit")
    note = f"{options.model}, {options.batch} at a time, generation; other wordings of {options.wordings} of the facts"
    show("A sequence of edits", columns, [row[:-3] for row in rows], as_json=options.json, note=note)


def _run_sequence(
    lm: LanguageModel, name: str, edits: list[Edit], options: argparse.Namespace, kept: KeptRows
) -> list[list[Any]]:
    """The points of one method; those kept by an earlier run are not made again, nor are the edits before them."""
    moments = MomentStore(cache_dir=options.cache)
    editor = get_editor(name, moments=moments, refuse_known=False, **_settings(name, options.set))
    sample = LocalitySample(options.locality, options.seed, load_world())
    total, spent, first = Overlay.empty(), 0.0, 0
    marks = [start + options.batch for start in range(0, len(edits), options.batch)]
    for done in (min(mark, len(edits)) for mark in marks):
        state = kept.beside(f"{name}-{done}")
        if kept.has(f"{name} {done}") and state is not None and state.exists():
            first, spent = done, kept.cells(f"{name} {done}")[-3]
            total = Overlay.load(state)
    rows = [kept.cells(f"{name} {done}") for done in range(1, first + 1) if kept.has(f"{name} {done}")]
    began_all = time.perf_counter()
    for start in range(first, len(edits), options.batch):
        if rows and _collapsed(total, rows[-1]):
            break  # beyond meaning
        part = edits[start : start + options.batch]
        began = time.perf_counter()
        total = compacted(total + editor.edit(lm, part, base=total, earlier=edits[:start]))
        spent += time.perf_counter() - began
        done = start + len(part)
        over = options.limit and time.perf_counter() - began_all > options.limit
        if done % options.every and done != len(edits) and not over:
            continue
        hold = _holding(lm, edits[:done], total)
        local = sample.measure(lm, Overlay.empty(), total, edits)
        norm, share = max(total.norms(lm).values(), default=0.0), local.after if local else float("nan")
        some = random.Random(options.seed).sample(edits[:done], min(done, options.wordings))
        others = rate(Exam(lm, some, seed=options.seed).taken([total] * len(some)).generality) if some else "-"
        cells = [name, done, rate(hold), others, f"{100 * share:.0f}", f"{norm:.2f}", f"{spent / done:.2f}"]
        if (state := kept.beside(f"{name}-{done}")) is not None:
            total.save(state)  # before its row: a row without its state would be of no use
        rows.append(kept.add(f"{name} {done}", [*cells, spent, sum(hold) / done, share]))
        if over:
            break
    return rows


def _holding(lm: LanguageModel, edits: list[Edit], overlay: Overlay) -> list[bool]:
    """A flag an edit: its own wording comes right in every form."""
    few = Amounts(generality=0, neighbour=0, relation=0, unrelated=0, alias=0, onehop=0, inverse=0)
    world = load_world()
    probes = [(n, p) for n, edit in enumerate(edits) for p in probes_for(edit, world, amounts=few).of("efficacy")]
    said = answers(lm, [probe for _, probe in probes], [overlay] * len(probes))
    hold = [True] * len(edits)
    for (number, probe), text in zip(probes, said, strict=True):
        hold[number] &= text.strip().lower() in {x.lower() for x in (probe.expected or "", *probe.aliases)}
    return hold


def _collapsed(total: Overlay, row: list[Any]) -> bool:
    finite = all(torch.isfinite(delta).all() for m in total.modules if (delta := total.delta(m)) is not None)
    return not finite or float(row[5]) > 1e3


def _plot(path: Path, points: list[tuple[Any, ...]], x: str, names: tuple[str, ...], *, log: bool = False) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for column, name in enumerate(names, start=1):
        axis.plot([point[0] for point in points], [point[column] for point in points], marker="o", label=name)
    if log:
        axis.set_xscale("log")
    axis.set_xlabel(x)
    axis.set_ylim(0, 1.02)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)


def parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--model", default="bundled", help="a model, or gpt2-size")
    shared.add_argument("--seed", type=int, default=0)
    shared.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the editors")
    shared.add_argument("--keep", type=Path, help="a file: rows in it are not measured again")
    shared.add_argument("--limit", type=float, default=0, help="seconds for a method in table and sequence; 0: none")
    shared.add_argument("--json", action="store_true")
    shared.add_argument("--threads", type=int, default=0)
    shared.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "palimpsest-benchmarks", help="second moments"
    )
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = top.add_subparsers(required=True)

    def part(name: str, run: Callable[[argparse.Namespace], None]) -> argparse.ArgumentParser:
        made = parts.add_parser(name, parents=[shared], help=run.__doc__)
        made.set_defaults(run=run)
        return made

    made = part("table", table)
    made.add_argument("--facts", type=int, default=100)
    made.add_argument("--methods", nargs="*")
    made.add_argument("--kinds", action="store_true", help="locality by kind as well")
    made.add_argument("--together", action="store_true", help="all facts in one call")
    made = part("speed", speed)
    made.add_argument("--completions", action="store_true", help="no questions: one form a fact, as in the papers")
    made.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100])
    made.add_argument("--methods", nargs="*", choices=list(available()))
    made.add_argument("--plain-most", type=int, default=100, help="the plain way is not run on more edits")
    made.add_argument("--peer", type=Path, help="a checkout of EasyEdit or memit, in place of the plain way")
    made = part("cell", cell)
    made.add_argument("--completions", action="store_true")
    made.add_argument("--method", required=True, choices=list(available()))
    made.add_argument("--size", type=int, required=True)
    made.add_argument("--way", required=True, choices=["ours", "plain"])
    made = part("moments", moments)
    made.add_argument("--tokens", type=int, nargs="+", default=[1_000, 3_000, 10_000, 30_000, 100_000])
    made.add_argument("--facts", type=int, default=50)
    made.add_argument("--method", default="r-rome")
    made.add_argument("--plot", type=Path)
    made = part("sequence", sequence)
    made.add_argument("--edits", type=int, default=1000)
    made.add_argument("--batch", type=int, default=1)
    made.add_argument("--every", type=int, default=100, help="edits between two measurements")
    made.add_argument("--wordings", type=int, default=100, help="facts that are also asked in other wordings")
    made.add_argument("--locality", type=int, default=100, help="questions of the locality sample")
    made.add_argument("--methods", nargs="*")
    made.add_argument("--plot", type=Path)
    return top


def main() -> None:
    options = parser().parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        options.run(options)
    except PalimpsestError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
