"""The Weights tab: write a fact into the parameters, and the ledger of what was written, each entry with its switch."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from app.ui.facts import fact_choices
from app.ui.page import MODEL_SLOT, REFRESH, Page
from app.ui.progress import reopening, with_progress
from app.ui.render import ACTIONS, action_of, guarded, note, progress_bar, seconds
from app.ui.weights_html import due_html, ledger_html, undone_html, verdict_html
from app.uploads import unpacked
from app.views import ConsolidationView, EntryView
from knowledge.errors import InvalidInput, PalimpsestError

BATCH_METHODS = ("memit", "alphaedit", "emmet")  # those that write a batch as one change; see app.consolidation_desk
GUARDS = [("do not look", "off"), ("warn", "warn"), ("refuse", "refuse")]
FORMATS = [("PEFT adapter", "peft"), ("merged checkpoint", "merged"), ("factors (safetensors)", "safetensors")]


@dataclass
class WeightsTab:
    """:meth:`build` lays the tab out, :meth:`wire` connects it."""

    page: Page

    def build(self) -> None:
        settings = self.page.service.settings
        methods = [(item.title, item.name) for item in self.page.service.weights.methods()]
        names = [name for _, name in methods]
        titles = {name: title for title, name in methods}
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
                    methods, label="Method", scale=3, min_width=120, elem_id="weight-method", filterable=False,
                    value=settings.method if settings.method in names else (names[0] if names else None),
                )  # fmt: skip
                self.guard = gr.Dropdown(
                    GUARDS, value=settings.guard, label="On side effects", scale=2, min_width=92,
                    elem_id="weight-guard", filterable=False,
                )  # fmt: skip
            self.apply = gr.Button("Write into the weights", variant="primary", min_width=150, elem_id="weight-apply")
        self.about = gr.HTML(self._about(settings.method), elem_id="method-about")
        self.result = gr.HTML("", elem_id="weight-result")
        self.chosen = gr.HTML("", js_on_load=ACTIONS, elem_id="weight-note")
        with gr.Row(elem_classes="table-bar", equal_height=True):
            gr.HTML('<p class="section">Ledger</p>')
            self.gone = gr.Checkbox(
                False, label="with undone", container=False, scale=1, min_width=110, elem_id="undone"
            )
        self.table = gr.HTML("", js_on_load=ACTIONS, elem_id="ledger")
        with gr.Accordion("Often-used facts", open=False, elem_id="consolidate-fold") as self.fold:
            gr.HTML(
                note(
                    "Facts that memory serves often are written into the weights as one batch, and kept there only if "
                    "their own probes come right and other answers stay. They stay in memory either way."
                )
            )
            with gr.Row(elem_classes="line-row"):
                self.least = gr.Number(
                    3, label="Served at least", minimum=1, maximum=10_000, precision=0, min_width=110,
                    elem_id="consolidate-least",
                )  # fmt: skip
                self.batch = gr.Dropdown(
                    [(titles[name], name) for name in BATCH_METHODS if name in titles], label="Method", min_width=120,
                    value=next((name for name in BATCH_METHODS if name in titles), None), filterable=False,
                    elem_id="consolidate-method",
                )  # fmt: skip
                self.write = gr.Button(
                    "Write often-used facts into the weights", variant="primary", min_width=150,
                    elem_id="consolidate-run",
                )  # fmt: skip
            self.verdict = gr.HTML("", elem_id="consolidate-verdict")
            self.due = gr.HTML("", elem_id="consolidate-due")
        with gr.Accordion("Import", open=False, elem_id="import-fold"):
            gr.HTML(
                note(
                    "A change made elsewhere: an export of this program (.zip or .safetensors), or the two files of a "
                    "plain LoRA adapter of peft, chosen together."
                )
            )
            self.sent = gr.File(
                label="Adapter", file_types=[".zip", ".safetensors", ".json"], file_count="multiple", height=110,
                elem_id="weight-import",
            )  # fmt: skip
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
                lambda gone: (self.table_html(gone), self.page.header_html()), [self.gone], shown, **REFRESH
            )

        self.method.change(self._about, [self.method], [self.about], queue=False, **quiet)
        busy = self.apply.click(lambda: gr.update(interactive=False), None, [self.apply], queue=False, **quiet)
        done = busy.then(
            guarded(reopening(self._apply, 3, gr.update(interactive=True))),
            [self.method, self.sentence, self.stored, self.guard],
            [self.result, self.sentence, self.stored, self.apply],
            **model, **quiet,
        )  # fmt: skip
        then_show(done.then(lambda: gr.update(interactive=True), None, [self.apply], queue=False, **quiet))
        then_show(self.table.click(guarded(self._act), None, [self.chosen], **model, **quiet))
        then_show(self.chosen.click(guarded(self._recompute), None, [self.chosen], **model, **quiet))
        self.fold.expand(guarded(self._due), [self.least], [self.due], **model, **quiet)
        self.least.change(guarded(self._due), [self.least], [self.due], trigger_mode="always_last", **model, **quiet)
        locked = self.write.click(lambda: gr.update(interactive=False), None, [self.write], queue=False, **quiet)
        written = locked.then(
            guarded(reopening(self._consolidate, 2, gr.update(interactive=True))),
            [self.least, self.batch],
            [self.verdict, self.due, self.write],
            **model,
            **quiet,
        )
        then_show(written.then(lambda: gr.update(interactive=True), None, [self.write], queue=False, **quiet))
        then_show(
            self.sent.upload(
                guarded(reopening(self._import, 2)), [self.sent], [self.chosen, self.sent], **model, **quiet
            )
        )
        self.gone.change(self.table_html, [self.gone], [self.table], queue=False, **quiet)
        self.export.click(guarded(self._export), [self.format], [self.file, self.result], **model, **quiet)

    def on_show(self, method: str | None, gone: bool = False) -> Iterator[tuple[Any, ...]]:
        """Fresh choices and ledger, when the tab comes to the front; the ledger waits for the model."""
        choices = gr.update(choices=fact_choices(self.page))
        if self.page.service.status().state in ("cold", "loading"):
            yield choices, progress_bar(0.0, "loading the model, whose ledger this is"), gr.skip(), gr.skip()
        table = self.table_html(gone)
        yield choices, table, gr.update(choices=method_choices(self.page)), self._about(method)

    def table_html(self, gone: bool = False) -> str:
        try:
            return ledger_html(self.page.service.weights.entries(include_undone=gone))
        except PalimpsestError as error:  # no model, no ledger; the tab itself must still open
            return note(str(error), "bad")

    def _about(self, name: str | None) -> str:
        for item in self.page.service.weights.methods():
            if item.name == name:
                paper = f" (arXiv {item.paper})" if item.paper[:1].isdigit() else ""
                missing = self.page.service.weights.unavailable().get(item.name, "")
                why = note(f"Not available here: {missing}.", "bad") if missing else ""
                several = note(f"Several facts at once: {item.batch}.") if item.batch else ""
                later = note(f"One call after another: {item.sequence}.") if item.sequence else ""
                return note(f"{item.summary or item.title}{paper}") + several + later + why
        return ""

    def _apply(self, method: str, sentence: str, stored: list[str], guard: str) -> Iterator[tuple[Any, ...]]:
        if not sentence.strip() and not stored:
            raise InvalidInput("Write a sentence, or choose facts from memory; there is nothing to write yet.")
        weights = self.page.service.weights
        text = sentence if sentence.strip() else None
        ids = [] if text else [int(fact) for fact in stored]

        def work(progress: Callable[[float, str], None]) -> EntryView:
            entry: EntryView = weights.apply(method, text=text, fact_ids=ids, guard=guard, progress=progress)
            return entry

        for step in with_progress(work):
            if isinstance(step, EntryView):
                words = f"Written by {step.method} in {seconds(step.seconds)}: {' '.join(step.facts)}"
                taken = [note(found.words, "good" if found.taken else "bad") for found in weights.taken(step.id)]
                yield note(words, "good") + "".join([*taken, *(note(item, "bad") for item in step.warnings)]), "", []
            else:
                yield progress_bar(*step), gr.skip(), gr.skip()

    def _act(self, event: gr.EventData) -> Any:
        act, key = action_of(event)
        weights = self.page.service.weights
        if act in ("on", "off"):
            entry = weights.set_active(int(key), act == "on")
            return note(f"Entry #{entry.id} is {act}.", "good")
        if act == "undo":
            later = self.page.service.ledger.dependents(int(key))
            return undone_html(weights.undo(int(key)), later)
        if act == "redo":
            return note(f"Entry #{weights.redo(int(key)).id} is back.", "good")
        return gr.skip()

    def _recompute(self, event: gr.EventData) -> Iterator[Any]:
        act, key = action_of(event)
        if act != "recompute":
            yield gr.skip()
            return
        numbers = [int(part) for part in key.split(",") if part.isdigit()]

        def work(progress: Callable[[float, str], None]) -> list[EntryView]:
            made: list[EntryView] = self.page.service.ledger.recompute(numbers, progress=progress)
            return made

        for step in with_progress(work):
            if isinstance(step, list):
                names = "; ".join(f"#{entry.id} {' '.join(entry.facts[:2])}" for entry in step)
                yield note(f"Made again: {names}", "good")
            else:
                yield progress_bar(*step)

    def _due(self, least: float | None) -> str:
        number = max(1, int(least or 1))
        return due_html(self.page.service.consolidating.due_facts(at_least=number), number)

    def _consolidate(self, least: float | None, method: str) -> Iterator[tuple[Any, Any]]:
        number = max(1, int(least or 1))

        def work(progress: Callable[[float, str], None]) -> ConsolidationView:
            desk = self.page.service.consolidating
            found: ConsolidationView = desk.write(at_least=number, method=method, progress=progress)
            return found

        for step in with_progress(work):
            if isinstance(step, ConsolidationView):
                yield verdict_html(step), self._due(least)
            else:
                yield progress_bar(*step), gr.skip()

    def _import(self, files: list[str] | None) -> Iterator[tuple[Any, Any]]:
        paths = [Path(name) for name in files or []]

        def work(progress: Callable[[float, str], None]) -> EntryView:
            with unpacked(paths) as path:
                progress(0.5, "reading the adapter")
                entry: EntryView = self.page.service.ledger.bring_in(path, name=", ".join(p.name for p in paths))
                return entry

        for step in with_progress(work):
            if isinstance(step, EntryView):
                layers = ", ".join(map(str, step.layers)) or "-"
                told = note(f"Imported as #{step.id}: layers {layers}, |ΔW|/|W| {step.relative_norm:.2%}.", "good")
                yield told + "".join(note(item, "bad") for item in step.warnings), None
            else:
                yield progress_bar(*step), gr.skip()

    def _export(self, form: str) -> Iterator[tuple[Any, Any]]:
        folder = self.page.service.settings.data / "exports"
        target = folder / f"weights-{form}"
        if target.is_dir():
            shutil.rmtree(target)
        folder.mkdir(parents=True, exist_ok=True)

        def work(progress: Callable[[float, str], None]) -> Path:
            made: Path = self.page.service.weights.export(target, format=form)
            progress(0.6, "packing")
            return Path(shutil.make_archive(str(folder / f"weights-{form}"), "zip", made)) if made.is_dir() else made

        for step in with_progress(work, "writing"):
            if isinstance(step, Path):
                yield gr.update(value=str(step), visible=True), note(f"Ready: {step.name}", "good")
            else:
                yield gr.skip(), progress_bar(*step)


def method_choices(page: Page) -> list[tuple[str, str]]:
    """All editors as choices, those that the model cannot be edited with marked."""
    missing = page.service.weights.unavailable()
    return [
        (f"{item.title} (not available)" if item.name in missing else item.title, item.name)
        for item in page.service.weights.methods()
    ]
