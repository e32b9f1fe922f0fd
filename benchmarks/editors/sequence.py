"""``sequence``: edits one after another, and how many of ALL made so far still hold."""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

import torch

from benchmarks.editors.cases import Exam, answers, drawn
from benchmarks.editors.kept_rows import KeptRows
from benchmarks.editors.options import given_settings, measured
from benchmarks.editors.plot import plot
from benchmarks.table import rate, show
from editors.compacting import compacted
from editors.guard import LocalitySample
from editors.registry import get_editor
from editors.statistics import MomentStore
from knowledge.edit import Edit
from knowledge.probes import Amounts, probes_for
from knowledge.world import load_world
from language_model.model import LanguageModel
from language_model.overlay import Overlay


def sequence(lm: LanguageModel, options: argparse.Namespace) -> None:
    """Edits one after another (or in batches), and how many of ALL made so far still hold."""
    edits = drawn(options.edits, seed=options.seed)
    kept, rows = KeptRows(options.keep, measured(options, lm, "edits", "batch", "every", "locality", "wordings")), []
    for name in options.methods or ["r-rome", "alphaedit", "rome"]:
        points = _run_sequence(lm, name, edits, options, kept)
        rows += points
        if options.plot:
            numbers = [(row[1], row[-2], row[-1]) for row in points]
            path = options.plot.with_stem(f"{options.plot.stem}-{name}")
            plot(path, numbers, "edits", ("retention", "locality"))
    held = ("hold in both forms, all so far", "in other wordings", "other answers as before")
    columns = ("method", "edits", *held, "dW to W", "s per edit")
    note = f"{options.model}, {options.batch} at a time, generation; other wordings of {options.wordings} of the facts"
    show("A sequence of edits", columns, [row[:-3] for row in rows], as_json=options.json, note=note)


def _run_sequence(
    lm: LanguageModel, name: str, edits: list[Edit], options: argparse.Namespace, kept: KeptRows
) -> list[list[Any]]:
    """The points of one method; those kept by an earlier run are not made again, nor are the edits before them."""
    moments = MomentStore(cache_dir=options.cache)
    editor = get_editor(name, moments=moments, refuse_known=False, **given_settings(name, options.set))
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
