"""The Compare tab: the same facts by several methods, rates with intervals, a chart, and every single answer."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import gradio as gr

from app.ui import compare_html as show
from app.ui.facts import fact_choices
from app.ui.page import MODEL_SLOT, Page, when_known
from app.ui.probe_lines import as_text, from_text
from app.ui.progress import reopening, with_progress
from app.ui.render import guarded, note, progress_bar
from app.views import Comparison
from knowledge.errors import InvalidInput, PalimpsestError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIDDEN, SHOWN = gr.update(visible=False), gr.update(visible=True)


@dataclass
class CompareTab:
    """:meth:`build` lays the tab out, :meth:`wire` connects it."""

    page: Page

    def build(self) -> None:
        settings = self.page.service.settings
        methods = [(item.title, item.name) for item in self.page.service.comparing.methods()]
        usual = self.page.service.comparing.usual()
        with gr.Column(elem_classes="form-group"):
            self.sentence = gr.Textbox(
                label="A fact, in plain words", placeholder="The Eiffel Tower is located in Rome.", lines=1,
                max_lines=3,
                max_length=settings.max_fact, elem_id="compare-line",
            )  # fmt: skip
            self.stored = gr.Dropdown(
                [], label="or facts from memory", multiselect=True, elem_id="compare-facts", value=[]
            )
            self.methods = gr.CheckboxGroup(methods, value=usual, label="Methods", elem_id="compare-methods",
                info="What each one does stands in docs/memory.md and docs/methods.md.")  # fmt: skip
            self.missing = gr.HTML("", elem_id="compare-missing")
            with gr.Accordion("Probes", open=False, elem_id="probes-fold"):
                gr.HTML(note("What every method is asked. Left empty, the program makes it out of the relation."))
                self.lines = gr.Textbox(
                    label="A line a probe: kind | question | right answer", lines=6, max_lines=14, max_length=40_000,
                    placeholder="the fact itself | Where is the Eiffel Tower? | Rome", elem_id="probe-lines",
                )  # fmt: skip
                gr.HTML(note("Kinds: " + ", ".join(show.KIND_NAMES.values()) + "."))
                with gr.Row():
                    self.fill = gr.Button("Fill in the usual ones", size="sm", min_width=120, elem_id="probes-fill")
                    self.empty = gr.Button("Clear", size="sm", min_width=60, elem_id="probes-empty")
                self.probes_note = gr.HTML("", elem_id="probes-note")
            with gr.Row():
                self.run = gr.Button("Compare", variant="primary", elem_id="compare-run", min_width=100)
                self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="compare-stop", min_width=100)
        self.progress = gr.HTML("", elem_id="compare-progress")
        self.table = gr.HTML(show.EMPTY, elem_id="compare-table")
        with gr.Column(visible=False) as self.more:
            self.plot = gr.Plot(show_label=False, format="png", elem_id="compare-plot", container=False)
            with gr.Row(equal_height=True):
                self.kind = gr.Dropdown(
                    [("every probe", "")],
                    value="",
                    label="Probes",
                    min_width=120,
                    elem_id="probe-kind",
                    filterable=False,
                )
                self.missed = gr.Dropdown(
                    [("anyone", "")],
                    value="",
                    label="Got wrong by",
                    min_width=120,
                    elem_id="probe-missed",
                    filterable=False,
                )
            self.probes = gr.HTML("", elem_id="probes")
            self.csv = gr.DownloadButton("Download CSV", size="sm", elem_id="compare-csv")
        self.found = gr.State(None)

    def wire(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        run = self.run.click(
            guarded(self._begin), [self.page.owner], [self.run, self.stop],
            js=when_known("owner"), queue=False, **quiet,
        )  # fmt: skip
        out = [
            self.progress,
            self.table,
            self.plot,
            self.found,
            self.more,
            self.kind,
            self.missed,
            self.probes,
            self.csv,
        ]
        run.then(
            guarded(reopening(self._run, len(out), SHOWN, HIDDEN)),
            [self.page.owner, self.sentence, self.stored, self.methods, self.lines],
            [*out, self.run, self.stop],
            concurrency_id=MODEL_SLOT, concurrency_limit=1, **quiet,
        ).then(lambda: (SHOWN, HIDDEN), None, [self.run, self.stop], queue=False, **quiet)  # fmt: skip
        about = [self.sentence, self.stored]
        self.fill.click(guarded(self._fill), about, [self.lines, self.probes_note], **quiet)
        self.empty.click(lambda: ("", ""), None, [self.lines, self.probes_note], queue=False, **quiet)
        for changed in (self.sentence.change, self.stored.change):
            changed(self._stale, [self.lines], [self.probes_note], queue=False, **quiet)
        self.stop.click(self._stop, [self.page.owner], None, queue=False, **quiet)
        for pick in (self.kind, self.missed):
            pick.input(self._filter, [self.found, self.kind, self.missed], [self.probes], queue=False, **quiet)

    def on_show(self) -> tuple[Any, Any, str]:
        """Fresh choices, when the tab comes to the front, and which methods this model lacks."""
        return gr.update(choices=fact_choices(self.page)), *self.page.method_choices()

    def _begin(self, owner: str) -> tuple[Any, Any]:
        self.page.runs.start(f"compare {owner}")
        return HIDDEN, SHOWN

    def _stop(self, owner: str) -> None:
        self.page.runs.stop(f"compare {owner}")

    @staticmethod
    def _facts(sentence: str, stored: list[str]) -> list[int | str]:
        facts: list[int | str] = [int(item) for item in stored]
        return [*facts, sentence.strip()] if sentence.strip() else facts

    def _fill(self, sentence: str, stored: list[str]) -> tuple[str, str]:
        facts = self._facts(sentence, stored)
        try:
            lines = self.page.service.comparing.probes(facts)
        except PalimpsestError as error:
            return "", note(str(error), "bad")
        desk = self.page.service.facts
        names = [fact if isinstance(fact, str) else desk.get(fact).statement for fact in facts]
        return as_text(lines, names), note("Change them, take lines out, or add your own.")

    @staticmethod
    def _stale(lines: str | None) -> str:
        """``lines`` is None as long as its fold has never been opened."""
        own = (lines or "").strip()
        return note("The facts have changed; these probes are asked all the same.", "bad") if own else ""

    def _run(
        self, owner: str, sentence: str, stored: list[str], methods: list[str], lines: str | None
    ) -> Iterator[tuple[Any, ...]]:
        name = f"compare {owner}"
        cancel = self.page.runs.current(name)
        same = tuple(gr.skip() for _ in range(8))
        if cancel is None:
            yield gr.skip(), *same
            return
        facts = self._facts(sentence, stored)
        try:
            if not facts:
                raise InvalidInput("Choose or write at least one fact to compare on.")
            if not methods:
                raise InvalidInput("Choose at least one method.")

            probes = from_text(lines or "") or None

            def work(progress: Callable[[float, str], None]) -> Comparison:
                found: Comparison = self.page.service.comparing.run(
                    facts, methods, progress=progress, cancel=cancel, probes=probes
                )
                return found

            for step in with_progress(work):
                if isinstance(step, Comparison):
                    yield self._shown(step, stopped=cancel.is_set())
                else:
                    yield progress_bar(*step), *same
        finally:
            cancel.set()
            self.page.runs.end(name, cancel)

    def _shown(self, found: Comparison, *, stopped: bool) -> tuple[Any, ...]:
        told = note("Stopped; these are the methods that were finished.") if stopped else ""
        if not found.rows:
            return told or note("Nothing to show."), show.EMPTY, None, None, HIDDEN, gr.skip(), gr.skip(), "", None
        kinds = [("every probe", "")] + [
            (show.kind_name(kind), kind) for kind in dict.fromkeys(p.kind for p in found.probes)
        ]
        names = [("anyone", "")] + [(row.title, row.method) for row in found.rows]
        return (
            told, show.table_html(found), chart(found), found, SHOWN,
            gr.update(choices=kinds, value=""), gr.update(choices=names, value=""), show.probes_html(found),
            self._csv(found),
        )  # fmt: skip

    def _filter(self, found: Comparison | None, kind: str, missed: str) -> str:
        return show.probes_html(found, kind, missed) if found else ""

    def _csv(self, found: Comparison) -> str:
        folder = self.page.service.settings.data / "exports" / secrets.token_hex(8)  # one visitor's is not another's
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "comparison.csv"
        target.write_text(show.csv_text(found), encoding="utf-8")
        return str(target)


def chart(found: Comparison) -> Figure:
    """Grouped bars, a group a metric, with the intervals as whiskers; rates only, legible on light and on dark."""
    from matplotlib.figure import Figure

    ink, line = "#8f7d60", "#b7a581"
    inks = ("#b8a582", "#5f7d74", "#b24a37", "#c98b3c", "#6b6fa0", "#7d9150", "#94577a", "#4f8aa8")
    metrics = [name for name in found.metrics if name in show.RATES]
    figure = Figure(figsize=(6.4, 3.1), dpi=150, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    width = 0.8 / max(1, len(found.rows))
    for number, row in enumerate(found.rows):
        for place, metric in enumerate(metrics):
            cell = row.cells.get(metric)
            if cell is None or cell.value is None:
                continue
            at = place - 0.4 + width * (number + 0.5)
            label = row.title if place == 0 else None
            axes.bar(at, cell.value, width * 0.88, color=inks[number % len(inks)], label=label, zorder=2)
            if cell.low is not None and cell.high is not None:
                spread = [[max(0.0, cell.value - cell.low)], [max(0.0, cell.high - cell.value)]]
                axes.errorbar(at, cell.value, yerr=spread, color=ink, capsize=2, linewidth=1, zorder=3)
    axes.set_xticks(range(len(metrics)), metrics, color=ink)
    axes.set_xlim(-0.5, len(metrics) - 0.5)
    axes.set_ylim(0, 1.05)
    axes.tick_params(colors=ink, length=0)
    axes.grid(axis="y", color=line, alpha=0.35, linewidth=0.6, zorder=0)
    for side in axes.spines.values():
        side.set_visible(False)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, labelcolor=ink, fontsize=9)
    return figure
