"""The Weights tab: write a fact into the parameters, and the ledger of what was written, each entry with its switch."""

from __future__ import annotations

import queue
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.ui.facts import fact_choices
from app.ui.page import MODEL_SLOT, Page
from app.ui.render import ACTIONS, action_of, button, esc, guarded, note, progress_bar, seconds, when
from app.views import EntryView
from knowledge.errors import InvalidInput, PalimpsestError

FORMATS = [("PEFT adapter", "peft"), ("merged checkpoint", "merged"), ("factors (safetensors)", "safetensors")]


@dataclass
class WeightsTab:
    """:meth:`build` lays the tab out, :meth:`wire` connects it."""

    page: Page

    def build(self) -> None:
        settings = self.page.service.settings
        methods = [(item.title, item.name) for item in self.page.service.weights.methods()]
        names = [name for _, name in methods]
        with gr.Column(elem_classes="form-group"):
            self.sentence = gr.Textbox(
                label="A fact, in plain words", placeholder="The Eiffel Tower is located in Rome.", lines=1,
                max_lines=3,
                max_length=settings.max_fact, elem_id="weight-line",
            )  # fmt: skip
            self.stored = gr.Dropdown(
                [], label="or facts from memory", multiselect=True, elem_id="weight-facts", value=[]
            )
            with gr.Row(elem_classes="line-row"):
                self.method = gr.Dropdown(
                    methods, label="Method", scale=3, min_width=140, elem_id="weight-method", filterable=False,
                    value=settings.method if settings.method in names else (names[0] if names else None),
                )  # fmt: skip
                self.apply = gr.Button(
                    "Write into the weights", variant="primary", scale=2, min_width=150, elem_id="weight-apply"
                )
        self.about = gr.HTML(self._about(settings.method), elem_id="method-about")
        self.result = gr.HTML("", elem_id="weight-result")
        with gr.Row(elem_classes="table-bar", equal_height=True):
            gr.HTML('<p class="section">Ledger</p>')
            self.gone = gr.Checkbox(
                False, label="with undone", container=False, scale=1, min_width=110, elem_id="undone"
            )
        self.table = gr.HTML("", js_on_load=ACTIONS, elem_id="ledger")
        with gr.Accordion("Export", open=False):
            gr.HTML(note("The entries that are on, as a PEFT adapter or merged into a checkpoint for from_pretrained."))
            with gr.Row(elem_classes="line-row"):
                self.format = gr.Dropdown(
                    FORMATS,
                    value="peft", label="Format", min_width=140, elem_id="weight-format", filterable=False,
                )  # fmt: skip
                self.export = gr.Button("Prepare", size="sm", min_width=90, elem_id="weight-export")
            self.file = gr.File(label="Download", visible=False, interactive=False, elem_id="weight-file")

    def wire(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        model = {"concurrency_id": MODEL_SLOT, "concurrency_limit": 1}
        shown = [self.table, self.page.header]

        def then_show(event: Any) -> Any:
            return event.then(
                lambda gone: (self.table_html(gone), self.page.header_html()), [self.gone], shown, **quiet
            )

        self.method.change(self._about, [self.method], [self.about], queue=False, **quiet)
        busy = self.apply.click(lambda: gr.update(interactive=False), None, [self.apply], queue=False, **quiet)
        done = busy.then(
            guarded(self._apply), [self.method, self.sentence, self.stored], [self.result, self.sentence, self.stored],
            **model, **quiet,
        )  # fmt: skip
        then_show(done.then(lambda: gr.update(interactive=True), None, [self.apply], queue=False, **quiet))
        then_show(self.table.click(guarded(self._act), None, [self.result], **model, **quiet))
        self.gone.change(self.table_html, [self.gone], [self.table], queue=False, **quiet)
        self.export.click(guarded(self._export), [self.format], [self.file, self.result], **model, **quiet)

    def on_show(self, gone: bool = False) -> tuple[Any, str]:
        """Fresh choices and ledger, when the tab comes to the front."""
        return gr.update(choices=fact_choices(self.page)), self.table_html(gone)

    def table_html(self, gone: bool = False) -> str:
        try:
            return ledger_html(self.page.service.weights.entries(include_undone=gone))
        except PalimpsestError as error:  # no model, no ledger; the tab itself must still open
            return note(str(error), "bad")

    def _about(self, name: str | None) -> str:
        for item in self.page.service.weights.methods():
            if item.name == name:
                paper = f" (arXiv {item.paper})" if item.paper[:1].isdigit() else ""
                return note(f"{item.summary or item.title}{paper}")
        return ""

    def _apply(self, method: str, sentence: str, stored: list[str]) -> Iterator[tuple[Any, ...]]:
        if not sentence.strip() and not stored:
            raise InvalidInput("Write a sentence, or choose facts from memory; there is nothing to write yet.")
        text = sentence if sentence.strip() else None
        ids = [] if text else [int(fact) for fact in stored]

        def work(progress: Callable[[float, str], None]) -> EntryView:
            entry: EntryView = self.page.service.weights.apply(method, text=text, fact_ids=ids, progress=progress)
            return entry

        for step in with_progress(work):
            if isinstance(step, EntryView):
                words = f"Written by {step.method} in {seconds(step.seconds)}: {' '.join(step.facts)}"
                yield note(words, "good"), "", []
            else:
                yield progress_bar(*step), gr.skip(), gr.skip()

    def _act(self, event: gr.EventData) -> Any:
        act, key = action_of(event)
        weights = self.page.service.weights
        if act in ("on", "off"):
            entry = weights.set_active(int(key), act == "on")
            return note(f"Entry #{entry.id} is {act}.", "good")
        if act == "undo":
            return note(f"Entry #{weights.undo(int(key)).id} is undone; the base weights were never touched.", "good")
        if act == "redo":
            return note(f"Entry #{weights.redo(int(key)).id} is back.", "good")
        return gr.skip()

    def _export(self, form: str) -> tuple[Any, str]:
        folder = self.page.service.settings.data / "exports"
        target = folder / f"weights-{form}"
        if target.is_dir():
            shutil.rmtree(target)
        folder.mkdir(parents=True, exist_ok=True)
        made: Path = self.page.service.weights.export(target, format=form)
        if made.is_dir():
            made = Path(shutil.make_archive(str(folder / f"weights-{form}"), "zip", made))
        return gr.update(value=str(made), visible=True), note(f"Ready: {made.name}", "good")


def with_progress(work: Callable[[Callable[[float, str], None]], Any]) -> Iterator[Any]:
    """Runs ``work(progress)`` in a thread; yields its (share, what) reports as they come, and its result last."""
    reports: queue.Queue[Any] = queue.Queue()
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(work(lambda share, what: reports.put((share, what))))
        except BaseException as error:  # handed over to the caller's thread
            outcome.append(error)
        reports.put(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    yield 0.0, "waiting for the model"
    while (report := reports.get()) is not None:
        while not reports.empty() and reports.queue[0] is not None:
            report = reports.get()
        yield report
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    yield outcome[0]


def ledger_html(entries: Sequence[EntryView]) -> str:
    """The ledger, newest first."""
    if not entries:
        return (
            '<div class="empty small"><p class="empty-title">The weights are as they came</p>'
            "<p>An edit written here changes what the model itself answers, without memory.</p></div>"
        )
    return f'<ul class="facts" aria-label="Weight edits">{"".join(_entry(entry) for entry in entries)}</ul>'


def _entry(entry: EntryView) -> str:
    facts = " ".join(entry.facts[:3]) + (f" and {len(entry.facts) - 3} more" if len(entry.facts) > 3 else "")
    layers = "layer" + ("s " if len(entry.layers) != 1 else " ") + (", ".join(map(str, entry.layers)) or "-")
    if entry.undone:
        state, buttons = '<span class="badge past">undone</span>', button("redo", "Redo", key=entry.id)
    elif not entry.fits:
        state, buttons = '<span class="badge past">other model</span>', button("undo", "Undo", key=entry.id)
    else:
        state = f'<span class="badge {"weight" if entry.active else "past"}">{"on" if entry.active else "off"}</span>'
        switch = button("off", "Off", key=entry.id) if entry.active else button("on", "On", key=entry.id)
        buttons = switch + button("undo", "Undo", key=entry.id)
    off = "" if entry.active else ' class="erased"' if entry.undone else ' class="quiet"'
    meta = (
        f"#{entry.id} · {esc(entry.method)} · {layers} · |ΔW|/|W| {entry.relative_norm:.2%} · "
        f"{seconds(entry.seconds)} · {when(entry.created_at)}"
    )
    return (
        f'<li class="fact"><div class="fact-text"><span{off}>{esc(facts)}</span> {state}'
        f'<span class="meta">{meta}</span></div><div class="acts">{buttons}</div></li>'
    )
