"""The Facts tab: one line in plain words, a form, the question before overwriting, the table, history, files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from app.errors import VerySimilar
from app.ui import facts_html as show
from app.ui.page import MODEL_SLOT, REFRESH, Page
from app.ui.progress import with_progress
from app.ui.render import ACTIONS, action_of, guarded, note, progress_bar
from app.views import AddOutcome, ImportReport, ParsePreview
from knowledge.errors import PalimpsestError

HIDDEN, SHOWN = gr.update(visible=False), gr.update(visible=True)


@dataclass
class FactsTab:
    """:meth:`build` lays the tab out, :meth:`wire` connects it."""

    page: Page

    def build(self) -> None:
        limit = self.page.service.settings.max_fact
        with gr.Row(elem_classes="line-row"):
            self.line = gr.Textbox(
                label="A fact, in plain words", placeholder="The Eiffel Tower is located in Rome.", lines=1,
                max_lines=3,
                max_length=limit, scale=6, elem_id="fact-line", min_width=180,
            )  # fmt: skip
            self.add = gr.Button("Write it", variant="primary", scale=1, min_width=92, elem_id="fact-add")
        self.preview = gr.HTML("", elem_id="fact-preview")
        with gr.Column(visible=False, elem_id="conflict", elem_classes="conflict") as self.conflict:
            self.conflict_text = gr.HTML("")
            with gr.Row():
                self.replace = gr.Button(
                    "Replace", variant="primary", size="sm", min_width=80, elem_id="conflict-replace"
                )
                self.keep = gr.Button("Keep both", size="sm", min_width=80, elem_id="conflict-keep")
                self.cancel = gr.Button("Cancel", size="sm", min_width=80, elem_id="conflict-cancel")
        self.result = gr.HTML("", elem_id="fact-result")
        with gr.Accordion("As a form", open=False, elem_id="fact-form"):
            relations = [(label, name) for name, label in self.page.service.facts.relations()]
            with gr.Row():
                self.subject = gr.Textbox(label="Subject", placeholder="Eiffel Tower", max_length=limit, min_width=120)
                self.relation = gr.Dropdown(
                    relations,
                    label="Relation",
                    allow_custom_value=True,
                    min_width=120,
                    value=None,
                    elem_id="form-relation",
                )
                self.object = gr.Textbox(label="Object", placeholder="Rome", max_length=limit, min_width=120)
            self.add_form = gr.Button("Write it", size="sm", elem_id="form-add")
        with gr.Row(elem_classes="table-bar", equal_height=True):
            self.query = gr.Textbox(
                show_label=False, container=False, placeholder="Search facts", scale=4, min_width=120, max_length=200,
                elem_id="fact-search", label="Search facts",
            )  # fmt: skip
            self.as_of = gr.Textbox(
                show_label=False, container=False, placeholder="as of 2026-01-31", max_lines=1, scale=3, min_width=150,
                max_length=40, elem_id="as-of", label="In force on",
            )  # fmt: skip
        with gr.Row(elem_classes="table-bar", equal_height=True):
            self.past = gr.Checkbox(
                False, label="with overwritten", container=False, scale=2, min_width=120, elem_id="past"
            )
            self.undo = gr.Button("Undo", size="sm", scale=0, min_width=58, elem_id="fact-undo")
            self.redo = gr.Button("Redo", size="sm", scale=0, min_width=58, elem_id="fact-redo")
        self.table = gr.HTML("", js_on_load=ACTIONS, elem_id="fact-table")
        self.refresh = gr.Button("Refresh", visible="hidden", elem_id="fact-refresh")
        self.number = gr.State(1)
        self.shown_for = gr.State(("", False, ""))  # what the table answers: another question starts on its first page
        self.chosen = gr.State(None)
        self.pending = gr.State(None)  # what the conflict question is about
        with gr.Column(visible=False, elem_id="fact-detail", elem_classes="detail") as self.detail:
            self.detail_text = gr.HTML("")
            with gr.Row(equal_height=True):
                self.new_object = gr.Textbox(
                    show_label=False, container=False, placeholder="New object", scale=4, min_width=110,
                    max_length=limit,
                    elem_id="new-object", label="New object",
                )  # fmt: skip
                self.save = gr.Button(
                    "Overwrite", variant="primary", size="sm", scale=1, min_width=84, elem_id="fact-save"
                )
                self.close = gr.Button("Close", size="sm", scale=1, min_width=60, elem_id="fact-close")
        with gr.Accordion("Corrections in words", open=False, elem_id="corrections-fold") as self.fold:
            self.corrections = gr.HTML("", js_on_load=ACTIONS, elem_id="corrections")
        with gr.Accordion("All changes", open=False, elem_id="changes-fold") as self.changes_fold:
            self.changes = gr.HTML("", js_on_load=ACTIONS, elem_id="changes")
        with gr.Accordion("Import and export", open=False, elem_id="files"):
            gr.HTML(
                note(
                    "CSV, JSON or JSONL with subject, relation and object, or a sentence a row; or a CounterFact, "
                    "zsRE, MQuAKE or KnowEdit file. A bad row never stops the good ones."
                )
            )
            self.file = gr.File(
                label="File to import", file_types=[".csv", ".json", ".jsonl"], file_count="single", height=110,
                elem_id="fact-file",
            )  # fmt: skip
            self.report = gr.HTML("", elem_id="import-report")
            with gr.Row():
                self.csv = gr.Button("Export CSV", size="sm", min_width=90, elem_id="export-csv")
                self.json = gr.Button("Export JSON", size="sm", min_width=90, elem_id="export-json")
            self.made = gr.DownloadButton("Download", visible="hidden", elem_id="export-made")

    def wire(self, tab: gr.Tab) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        asked = [self.line, self.conflict, self.conflict_text, self.result, self.pending]
        model = {"concurrency_id": MODEL_SLOT, "concurrency_limit": 1}

        def then_show(event: Any) -> Any:
            return event.then(None, None, None, js="() => document.querySelector('#fact-refresh')?.click()").then(
                lambda chosen: (self.page.header_html(), self.changes_html(), *self._details_again(chosen)),
                [self.chosen],
                [self.page.header, self.changes, self.detail, self.detail_text, self.new_object],
                **REFRESH,
            )

        # One event for all that changes the table: of two, the one that was asked for first could be shown last.
        asking = [self.query.change, self.past.change, self.as_of.submit, self.as_of.blur]
        about = [self.query, self.past, self.as_of, self.number, self.shown_for]
        gr.on([*asking, self.refresh.click, tab.select], guarded(self._table), about,
              [self.table, self.number, self.shown_for], **REFRESH)  # fmt: skip
        self.line.change(
            guarded(self._preview), [self.line], [self.preview], trigger_mode="always_last", queue=False, **quiet
        )  # fmt: skip
        self.line.blur(
            guarded(self._present), [self.line], [self.preview], trigger_mode="always_last", **model, **quiet
        ).then(  # the fact may have been written while the model was asked
            lambda text: gr.skip() if text.strip() else "", [self.line], [self.preview], **REFRESH
        )  # fmt: skip
        for trigger in (self.add.click, self.line.submit):
            then_show(trigger(guarded(self._add), [self.line], [*asked, self.preview], **quiet))
        form = [self.subject, self.relation, self.object]
        then_show(self.add_form.click(guarded(self._add_form), form, [*form, *asked[1:]], **quiet))
        then_show(self.replace.click(guarded(self._replace), [self.pending], [*asked, self.preview], **quiet))
        then_show(self.keep.click(guarded(self._keep), [self.pending], [*asked, self.preview], **quiet))
        self.cancel.click(lambda: (HIDDEN, ""), None, [self.conflict, self.conflict_text], queue=False, **quiet)
        then_show(self.undo.click(guarded(self._undo), None, [self.result], **quiet))
        then_show(self.redo.click(guarded(self._redo), None, [self.result], **quiet))
        self.fold.expand(guarded(self.corrections_html), None, [self.corrections], **quiet)
        self.changes_fold.expand(guarded(self.changes_html), None, [self.changes], **quiet)
        self.corrections.click(guarded(self._act_correction), None, [self.corrections, self.result], **quiet)
        then_show(self.changes.click(guarded(self._act_change), None, [self.result], **quiet))
        details = [self.detail, self.detail_text, self.new_object, self.chosen]
        then_show(
            self.table.click(
                guarded(self._act), [self.number, self.chosen], [self.number, self.result, *details], **quiet
            )
        )
        then_show(
            self.save.click(guarded(self._save), [self.chosen, self.new_object], [self.result, *details], **quiet)
        )
        then_show(
            self.new_object.submit(
                guarded(self._save), [self.chosen, self.new_object], [self.result, *details], **quiet
            )
        )
        self.close.click(lambda: (HIDDEN, None), None, [self.detail, self.chosen], queue=False, **quiet)
        then_show(self.file.upload(guarded(self._import), [self.file], [self.report, self.file], **quiet))
        for kind, press in (("csv", self.csv), ("json", self.json)):
            press.click(guarded(partial(self._export, kind)), None, [self.made], **quiet).success(
                None, None, None, js="() => { setTimeout(() => document.querySelector('#export-made').click(), 150); }"
            )

    def _table(
        self, query: str, past: bool, as_of: str, number: int, shown_for: tuple[str, bool, str]
    ) -> tuple[str, int, tuple[str, bool, str]]:
        asked = (query, past, as_of)
        return *self.table_html(query, past, number if asked == tuple(shown_for) else 1, as_of), asked

    def table_html(self, query: str = "", past: bool = False, number: int = 1, as_of: str = "") -> tuple[str, int]:
        try:
            page = self.page.service.facts.page(
                query.strip(), include_past=past, page=number, as_of=as_of.strip() or None
            )
        except PalimpsestError as error:  # a date that is none; it stands where the facts would
            return note(str(error), "bad"), number
        return show.page_html(page, query.strip(), as_of.strip()), page.page

    def corrections_html(self) -> str:
        return show.corrections_html(self.page.service.corrections.list(include_past=True))

    def changes_html(self) -> str:
        return show.changes_html(self.page.service.facts.history(limit=30))

    def _act_correction(self, event: gr.EventData) -> tuple[Any, Any]:
        act, key = action_of(event)
        desk = self.page.service.corrections
        if act == "forget":
            told = note(f"Taken back: {desk.remove(int(key)).text}", "good")
        elif act == "recall":
            told = note(f"In force again: {desk.restore(int(key)).text}", "good")
        else:
            return gr.skip(), gr.skip()
        return self.corrections_html(), told

    def _act_change(self, event: gr.EventData) -> Any:
        act, key = action_of(event)
        if act == "undo":
            return note(f"Undone: {self.page.service.facts.undo(int(key)).text}", "good")
        if act == "redo":
            return note(f"Done again: {self.page.service.facts.redo(int(key)).text}", "good")
        return gr.skip()

    def _preview(self, text: str) -> str:
        return show.preview_html(self.page.service.facts.preview(text)) if text.strip() else ""

    def _present(self, text: str) -> Any:
        """The preview once more, with what the model answers at present."""
        if not text.strip():
            return ""
        preview: ParsePreview = self.page.service.facts.preview(text)
        if not preview.ok or self.page.service.status().state != "ready":
            return show.preview_html(preview)
        return show.preview_html(preview, self.page.service.facts.present_answer(preview))

    def _add(self, text: str) -> tuple[Any, ...]:
        preview = self.page.service.facts.preview(text)
        if not preview.ok:
            told = preview.problem if text.strip() else "Write a fact first: The Eiffel Tower is located in Rome."
            return text, HIDDEN, "", note(told, "bad"), None, ""
        if preview.conflict and not preview.duplicate:
            return text, SHOWN, show.conflict_html(preview), "", {"text": text}, gr.skip()
        return self._write({"text": text}, "", (text, gr.skip()))

    def _write(self, fact: dict[str, str], kept: Any, again: tuple[Any, Any]) -> tuple[Any, ...]:
        """Stores a fact, or asks about one that is very similar; ``again``: line and preview while that is asked."""
        try:
            told = self._told(self.page.service.facts.add(**fact, similar="ask"))
        except VerySimilar as found:
            question = show.similar_html(self._statement(fact), found.similar)
            return again[0], SHOWN, question, "", {**fact, "similar": "yes"}, again[1]
        return kept, HIDDEN, "", told, None, ""

    def _statement(self, fact: dict[str, str]) -> str:
        facts = self.page.service.facts
        preview: ParsePreview = facts.preview(fact["text"]) if "text" in fact else facts.preview_triple(**fact)
        return preview.statement

    def _add_form(self, subject: str, relation: str | None, object: str) -> tuple[Any, ...]:
        form = (subject, relation, object)
        triple = {"subject": subject, "relation": relation or "", "object": object}
        preview = self.page.service.facts.preview_triple(**triple)
        if not preview.ok:
            return *form, HIDDEN, "", note(preview.problem, "bad"), None
        if preview.conflict and not preview.duplicate:
            return *form, SHOWN, show.conflict_html(preview), "", triple
        _, *asked, _ = self._write(triple, "", ("", ""))
        return *(form if asked[3] else ("", None, "")), *asked

    def _replace(self, pending: dict[str, str] | None) -> tuple[Any, ...]:
        return self._store(pending, keep_both=False)

    def _keep(self, pending: dict[str, str] | None) -> tuple[Any, ...]:
        return self._store(pending, keep_both=True)

    def _store(self, pending: dict[str, str] | None, *, keep_both: bool) -> tuple[Any, ...]:
        if not pending:
            return "", HIDDEN, "", "", None, ""
        fact = {name: value for name, value in pending.items() if name != "similar"}
        if "similar" in pending:
            outcome = self.page.service.facts.add(**fact, similar="keep" if keep_both else "replace")
        else:
            outcome = self.page.service.facts.add(**fact, keep_both=keep_both)
        return "", HIDDEN, "", self._told(outcome), None, ""

    @staticmethod
    def _told(outcome: AddOutcome) -> str:
        if outcome.duplicate:
            return note(f"Memory says so already: {outcome.fact.statement}")
        if outcome.superseded:
            return show.overwritten_html(outcome.superseded, outcome.fact)
        return note(f"Written: {outcome.fact.statement}", "good")

    def _undo(self) -> str:
        return note(f"Undone: {self.page.service.facts.undo().text}", "good")

    def _redo(self) -> str:
        return note(f"Done again: {self.page.service.facts.redo().text}", "good")

    def _act(self, number: int, chosen: int | None, event: gr.EventData) -> tuple[Any, ...]:
        """A click in the table: another page, details of a row, or removing and restoring it."""
        act, key = action_of(event)
        same = (gr.skip(), gr.skip(), gr.skip(), chosen)
        if act == "page":
            return int(key), gr.skip(), *same
        if act == "open":
            return number, "", *self._details(int(key))
        if act == "remove":
            gone = self.page.service.facts.remove(int(key))
            return number, note(f"Scraped off: {gone.statement} Undo brings it back.", "good"), HIDDEN, "", "", None
        if act == "restore":
            back = self.page.service.facts.restore(int(key))
            return number, note(f"In force again: {back.statement}", "good"), HIDDEN, "", "", None
        return number, gr.skip(), *same

    def _details(self, fact_id: int) -> tuple[Any, ...]:
        fact = self.page.service.facts.get(fact_id)
        text = show.detail_html(fact, self.page.service.facts.history(fact_id))
        return SHOWN, text, gr.update(value=fact.object, visible=fact.current), fact_id

    def _details_again(self, chosen: int | None) -> tuple[Any, ...]:
        """The open fact as it is now: an undo, an import or another window may have changed it.

        The new object stays as it is: somebody may be typing it.
        """
        if chosen is None:
            return gr.skip(), gr.skip(), gr.skip()
        try:
            shown, text, *_ = self._details(chosen)
            return shown, text, gr.update(visible=self.page.service.facts.get(chosen).current)
        except PalimpsestError:  # it is gone
            return HIDDEN, "", gr.skip()

    def _save(self, chosen: int | None, object: str) -> tuple[Any, ...]:
        if chosen is None or not object.strip():
            return note("Write the new object first.", "bad"), gr.skip(), gr.skip(), gr.skip(), chosen
        outcome = self.page.service.facts.edit(chosen, object=object)
        return self._told(outcome), HIDDEN, "", "", None

    def _import(self, path: str | None) -> Iterator[tuple[Any, Any]]:
        if not path:
            yield "", None
            return

        def work(progress: Callable[[float, str], None]) -> ImportReport:
            report: ImportReport = self.page.service.facts.import_file(Path(path), progress=progress)
            return report

        try:
            for step in with_progress(work, "reading the file"):
                if isinstance(step, ImportReport):
                    yield show.report_html(step), None
                else:
                    yield progress_bar(*step), gr.skip()
        except PalimpsestError as error:  # in the place of the progress; it stays longer there than a toast
            yield note(str(error), "bad"), None

    def _export(self, kind: str) -> str:
        folder = self.page.service.settings.data / "exports"
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / f"facts.{kind}"
        self.page.service.facts.export_file(target)
        return str(target)


def fact_choices(page: Page, limit: int = 200) -> list[tuple[str, str]]:
    """The current facts as choices of a dropdown, newest first: (statement, id)."""
    rows = page.service.facts.page("", page=1, size=limit).rows
    return [(f"{fact.statement}  #{fact.id}", str(fact.id)) for fact in rows]
