"""``table``: what every method holds and disturbs, and what it costs."""

from __future__ import annotations

import argparse
import time

from benchmarks.editors.cases import LOCALITY, Exam, drawn
from benchmarks.editors.kept_rows import KeptRows
from benchmarks.editors.options import given_settings, measured
from benchmarks.table import rate, show
from editors.base import EditRefused
from editors.registry import available, get_editor
from editors.statistics import MomentStore
from language_model.model import LanguageModel
from language_model.overlay import Overlay


def table(lm: LanguageModel, options: argparse.Namespace) -> None:
    """Every method on the same facts: each fact edited alone, or all of them in one call."""
    edits = drawn(options.facts, seed=options.seed, held_out=True)
    exam, moments = Exam(lm, edits, seed=options.seed), MomentStore(cache_dir=options.cache)
    rows = KeptRows(options.keep, measured(options, lm, "facts", "together", "limit", "kinds"))
    names = options.methods or list(available())
    held = ("holds in both forms", "efficacy", "generality", "locality (as before)")
    columns = ("method", "facts", *held, *(LOCALITY.values() if options.kinds else ()), "s per edit")
    for name in names:
        if rows.has(name):
            continue
        editor = get_editor(name, moments=moments, refuse_known=False, **given_settings(name, options.set))
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
