"""What the weight editors cost and what they hold, in four parts that run alone:

    python -m benchmarks.editors table --facts 100            # every method: efficacy, generality, locality, seconds
    python -m benchmarks.editors speed --sizes 1 10 100       # ours beside the plain way, same result
    python -m benchmarks.editors moments                      # how much text the second moments need
    python -m benchmarks.editors sequence --edits 1000        # one after another, ALL earlier edits asked again

Each prints its table with command, machine and date. ``--model gpt2-size`` takes random weights in the shape of GPT-2
small.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.edit_cases import answers, counterfactuals, load, outcomes
from benchmarks.plain_editing import plain_memit, plain_r_rome
from benchmarks.table import rate, show
from editors.base import EditRefused
from editors.compacting import compacted
from editors.guard import LocalitySample
from editors.registry import available, get_editor
from editors.statistics import MomentStore
from knowledge.probes import Amounts, probes_for
from knowledge.world import load_world
from language_model.model import LanguageModel
from language_model.overlay import Overlay

PLAIN: dict[str, Callable[..., Overlay]] = {"r-rome": plain_r_rome, "memit": plain_memit}


def table(options: argparse.Namespace) -> None:
    """Every method on the same facts: each fact edited alone, or all of them in one call."""
    lm, edits = load(options.model), counterfactuals(options.facts, seed=options.seed, held_out=True)
    moments = MomentStore(cache_dir=options.cache)
    rows = []
    for name in options.methods or list(available()):
        editor = get_editor(name, moments=moments, refuse_known=False)
        start = time.perf_counter()
        try:
            if options.together:
                overlays = [editor.edit(lm, edits)] * len(edits)
            else:
                overlays = [editor.edit(lm, [edit]) for edit in edits]
        except EditRefused as error:
            rows.append((editor.title, str(error).split(". ")[0], "", "", "", ""))
            continue
        seconds = (time.perf_counter() - start) / len(edits)
        found = outcomes(lm, edits, overlays, seed=options.seed)
        print(name, rate(found.every_form), file=sys.stderr, flush=True)
        cells = (rate(flags) for flags in (found.every_form, found.efficacy, found.generality, found.locality))
        rows.append((editor.title, *cells, f"{seconds:.2f}"))
    columns = ("method", "holds in both forms", "efficacy", "generality", "locality (as before)", "s per edit")
    how = "in one call" if options.together else "each alone"
    show(
        f"Editors on {options.model}",
        columns,
        rows,
        as_json=options.json,
        note=f"{len(edits)} facts, {how}, generation",
    )


# ------------------------------------------------------------------------------------------------------- speed


def speed(options: argparse.Namespace) -> None:
    """Ours beside the plain way; each cell in a process of its own, so that its peak memory is its own."""
    rows = []
    for method in options.methods or list(PLAIN):
        for size in options.sizes:
            cells: dict[str, dict[str, Any]] = {}
            for way in ("ours", "plain"):
                if way == "plain" and size > options.plain_most:
                    continue
                cells[way] = _in_own_process(options, method, size, way)
                print(method, size, way, cells[way], file=sys.stderr, flush=True)
            ours, plain = cells["ours"], cells.get("plain")
            gap = _gap(ours["file"], plain["file"]) if plain else None
            rows.append(
                (
                    method,
                    size,
                    f"{ours['seconds'] / size:.3f}",
                    f"{plain['seconds'] / size:.3f}" if plain else "-",
                    f"{plain['seconds'] / ours['seconds']:.1f}" if plain else "-",
                    f"{100 * gap:.2f} %" if gap is not None else "-",
                    f"{ours['peak']:.0f}",
                    f"{plain['peak']:.0f}" if plain else "-",
                )
            )
    columns = ("method", "edits", "s per edit", "plain", "times faster", "|dW - dW plain| / |dW|", "peak MiB", "plain")
    note = f"{options.model}; second moments computed before; peak memory above the loaded model's"
    show("Seconds per edit", columns, rows, as_json=options.json, note=note)


def _in_own_process(options: argparse.Namespace, method: str, size: int, way: str) -> dict[str, Any]:
    arguments = ["cell", "--model", options.model, "--cache", str(options.cache), "--method", method]
    arguments += ["--size", str(size), "--way", way, "--seed", str(options.seed)]
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.editors", *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, Any] = json.loads(made.stdout.splitlines()[-1])
    return found


def cell(options: argparse.Namespace) -> None:
    """One measurement: prints seconds, peak memory in MiB above the loaded model, and a file with the change."""
    lm, edits = load(options.model), counterfactuals(options.size, seed=options.seed)
    moments = MomentStore(cache_dir=options.cache)
    editor = get_editor(options.method, moments=moments, refuse_known=False)
    settings = editor.settings(lm)
    moments.get(lm, getattr(settings, "layers", None) or [settings.layer])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    editor.edit(lm, counterfactuals(1, seed=99))  # first calls of the libraries are no cost of an edit
    start = time.perf_counter()
    overlay = editor.edit(lm, edits) if options.way == "ours" else PLAIN[options.method](lm, edits, settings, moments)
    seconds = time.perf_counter() - start
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    handle = tempfile.NamedTemporaryFile(suffix=".safetensors", delete=False)  # noqa: SIM115
    handle.close()
    compacted(overlay).save(handle.name)
    print(json.dumps({"seconds": seconds, "peak": peak, "file": handle.name}))


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
    lm, edits = load(options.model), counterfactuals(options.facts, seed=options.seed)
    rows, points = [], []
    finest = MomentStore(sample_tokens=max(options.tokens))
    for count in sorted(options.tokens):
        store = finest if count == max(options.tokens) else MomentStore(sample_tokens=count)
        editor = get_editor(options.method, moments=store, refuse_known=False)
        settings = editor.settings(lm)
        layers = list(getattr(settings, "layers", None) or [settings.layer])
        start = time.perf_counter()
        taken = store.get(lm, layers)
        seconds = time.perf_counter() - start
        best = finest.get(lm, layers)
        apart = max(float((taken[x].matrix - best[x].matrix).norm() / best[x].matrix.norm()) for x in layers)
        overlays = [editor.edit(lm, [edit]) for edit in edits]
        found = outcomes(lm, edits, overlays, seed=options.seed)
        rows.append(
            (
                count,
                f"{seconds:.1f}",
                f"{taken[layers[-1]].shrinkage:.3f}",
                f"{apart:.3f}",
                rate(found.every_form),
                rate(found.generality),
                rate(found.locality),
            )
        )
        points.append((count, *(sum(x) / len(x) for x in (found.every_form, found.generality, found.locality))))
        print(rows[-1], file=sys.stderr, flush=True)
    columns = ("tokens", "seconds", "shrinkage", "|C - C'| / |C'|", "holds in both forms", "generality", "locality")
    note = f"{options.model}, {options.method}, {len(edits)} facts each alone; C' from {max(options.tokens)} tokens"
    show("Second moments and the quality of edits", columns, rows, as_json=options.json, note=note)
    if options.plot:
        _plot(options.plot, points, "tokens of text", ("holds in both forms", "generality", "locality"), log=True)


# ------------------------------------------------------------------------------------------------------ sequence


def sequence(options: argparse.Namespace) -> None:
    """Edits one after another (or in batches), and how many of ALL made so far still hold."""
    rows = []
    for name in options.methods or ["r-rome", "alphaedit", "rome"]:
        lm, edits = load(options.model), counterfactuals(options.edits, seed=options.seed)
        points = _run_sequence(lm, name, edits, options)
        rows += points
        if options.plot:
            numbers = [(row[1], row[-2], row[-1]) for row in points]
            path = options.plot.with_stem(f"{options.plot.stem}-{name}")
            _plot(path, numbers, "edits", ("retention", "locality"))
    columns = ("method", "edits", "hold in both forms, all so far", "other answers as before", "|dW|/|W|", "s per edit")
    note = f"{options.model}, {options.batch} at a time, generation"
    show("A sequence of edits", columns, [row[:-2] for row in rows], as_json=options.json, note=note)


def _run_sequence(lm: LanguageModel, name: str, edits: list[Any], options: argparse.Namespace) -> list[tuple[Any, ...]]:
    editor = get_editor(name, moments=MomentStore(cache_dir=options.cache), refuse_known=False)
    world, total, spent = load_world(), Overlay.empty(), 0.0
    few = Amounts(generality=0, neighbour=0, relation=0, unrelated=0, alias=0, onehop=0, inverse=0)
    sample, rows = LocalitySample(options.locality, options.seed, world), []
    for start in range(0, len(edits), options.batch):
        part = edits[start : start + options.batch]
        began = time.perf_counter()
        total = compacted(total + editor.edit(lm, part, base=total, earlier=edits[:start]))
        spent += time.perf_counter() - began
        done = start + len(part)
        if done % options.every and done != len(edits):
            continue
        probes = [(n, p) for n, e in enumerate(edits[:done]) for p in probes_for(e, world, amounts=few).of("efficacy")]
        said = answers(lm, [probe for _, probe in probes], [total] * len(probes))
        hold = [True] * done
        for (number, probe), text in zip(probes, said, strict=True):
            hold[number] &= text.strip().lower() in {x.lower() for x in (probe.expected or "", *probe.aliases)}
        local = sample.measure(lm, Overlay.empty(), total, edits)
        norm = max(total.norms(lm).values(), default=0.0)
        kept = local.after if local else float("nan")
        rows.append(
            (name, done, rate(hold), f"{100 * kept:.0f}", f"{norm:.2f}", f"{spent / done:.2f}", sum(hold) / done, kept)
        )
        print(rows[-1], file=sys.stderr, flush=True)
        if norm > 1e3 or not all(torch.isfinite(d).all() for m in total.modules if (d := total.delta(m)) is not None):
            break  # collapsed beyond meaning
    return rows


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
    made.add_argument("--together", action="store_true", help="all facts in one call")
    made = part("speed", speed)
    made.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100])
    made.add_argument("--methods", nargs="*", choices=list(PLAIN))
    made.add_argument("--plain-most", type=int, default=100, help="the plain way is not run on more edits")
    made = part("cell", cell)
    made.add_argument("--method", required=True, choices=list(PLAIN))
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
    made.add_argument("--locality", type=int, default=100, help="questions of the locality sample")
    made.add_argument("--methods", nargs="*")
    made.add_argument("--plot", type=Path)
    return top


def main() -> None:
    options = parser().parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.run(options)


if __name__ == "__main__":
    main()
