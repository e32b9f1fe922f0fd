"""``moments``: how much text the second moments need."""

from __future__ import annotations

import argparse
import time

from benchmarks.editors.cases import Exam, drawn
from benchmarks.editors.kept_rows import KeptRows
from benchmarks.editors.options import given_settings, measured
from benchmarks.editors.plot import plot
from benchmarks.table import rate, show
from editors.registry import get_editor
from editors.statistics import MomentStore
from language_model.model import LanguageModel


def moments(lm: LanguageModel, options: argparse.Namespace) -> None:
    """Edit quality against the number of tokens that the second moments are made of."""
    edits = drawn(options.facts, seed=options.seed)
    exam = Exam(lm, edits, seed=options.seed)
    rows = KeptRows(options.keep, measured(options, lm, "facts", "method", "tokens"))
    finest = MomentStore(sample_tokens=max(options.tokens))
    finest_seconds = 0.0
    for count in sorted(options.tokens):
        if rows.has(str(count)):
            continue
        store = finest if count == max(options.tokens) else MomentStore(sample_tokens=count)
        store.prefixes = finest.prefixes  # they do not depend on the sample
        editor = get_editor(
            options.method, moments=store, refuse_known=False, **given_settings(options.method, options.set)
        )
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
        plot(options.plot, points, "tokens of text", ("holds in both forms", "generality", "locality"), log=True)
