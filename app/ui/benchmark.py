"""The Benchmark tab: methods on many facts of the world, in the background, with the figures at the end.

The work belongs to the server, not to the page: it goes on when the page is closed, and whoever opens the tab sees how
far it is. One benchmark runs at a time.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app.ui import compare_html as show
from app.ui.page import Page
from app.ui.render import guarded, note, progress_bar
from app.views import Comparison, as_json
from knowledge.errors import InvalidInput, PalimpsestError

log = logging.getLogger(__name__)

MOST = 200  # facts; more take hours on a small machine, and the intervals are narrow by then
EMPTY = (
    '<div class="empty small"><p class="empty-title">Many facts, one table</p><p>Facts of the bundled world are drawn '
    "at random, and each method gives them another object. It goes on in the background, also when this page is "
    "closed.</p></div>"
)


@dataclass
class Job:
    """One run; the thread writes, the pages read."""

    cancel: threading.Event = field(default_factory=threading.Event)
    share: float = 0.0
    what: str = "starting"
    found: Comparison | None = None
    files: tuple[str, str] = ("", "")  # the figures as CSV and as JSON
    error: str = ""
    done: bool = False


@dataclass
class BenchmarkTab:
    """:meth:`build` lays the tab out, :meth:`wire` connects it."""

    page: Page
    job: Job | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def build(self) -> None:
        desk = self.page.service.comparing
        with gr.Column(elem_classes="form-group"):
            self.count = gr.Slider(1, MOST, value=10, step=1, label="Facts", elem_id="bench-count")
            methods = [(item.title, item.name) for item in desk.methods()]
            self.methods = gr.CheckboxGroup(methods, value=desk.usual(), label="Methods", elem_id="bench-methods")
            self.missing = gr.HTML("", elem_id="bench-missing")
            with gr.Row(equal_height=True):
                self.together = gr.Checkbox(
                    False, label="all facts in one edit", container=False, min_width=170, elem_id="bench-together"
                )
                self.seed = gr.Number(self.page.service.settings.seed, label="Seed", precision=0, minimum=0,
                                      min_width=90, elem_id="bench-seed")  # fmt: skip
            self.run = gr.Button("Run", variant="primary", elem_id="bench-run", min_width=100)
            self.stop = gr.Button("Stop", variant="stop", visible=False, elem_id="bench-stop", min_width=100)
        self.progress = gr.HTML("", elem_id="bench-progress")
        self.table = gr.HTML(EMPTY, elem_id="bench-table")
        with gr.Row(visible=False) as self.files:
            self.csv = gr.DownloadButton("Download CSV", size="sm", elem_id="bench-csv", min_width=110)
            self.json = gr.DownloadButton("Download JSON", size="sm", elem_id="bench-json", min_width=110)
        self.timer = gr.Timer(1.0, active=False)

    def wire(self) -> None:
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        state = [self.run, self.stop, self.progress, self.timer]
        self.shown = [*state, self.table, self.files, self.csv, self.json]
        inputs = [self.count, self.methods, self.together, self.seed]
        self.run.click(guarded(self._start), inputs, self.shown, queue=False, **quiet)
        self.stop.click(self._stop, None, self.shown, queue=False, **quiet)
        self.timer.tick(guarded(self.look), None, self.shown, queue=False, **quiet)

    def on_show(self) -> tuple[Any, ...]:
        """What the methods are, then :meth:`look`; when the tab comes to the front."""
        return *self.page.method_choices(), *self.look()

    def look(self) -> tuple[Any, ...]:
        """How far it is; the figures, once they are there. The timer stops itself when nothing runs."""
        job = self.job
        if job is None:
            return gr.update(visible=True), gr.update(visible=False), "", gr.Timer(active=False), *self._figures(None)
        if not job.done:
            bar = progress_bar(job.share, "stopping" if job.cancel.is_set() else job.what)
            same = tuple(gr.skip() for _ in range(4))
            return gr.update(visible=False), gr.update(visible=True), bar, gr.Timer(active=True), *same
        told = note(job.error, "bad") if job.error else ""
        if job.cancel.is_set() and not job.error:
            told = note("Stopped; these are the facts, or the methods, that were finished."
                        if job.found and job.found.rows else "Stopped before anything was finished.")  # fmt: skip
        return (
            gr.update(visible=True),
            gr.update(visible=False),
            told,
            gr.Timer(active=False),
            *self._figures(job),
        )

    def _start(self, count: float, methods: Sequence[str], together: bool, seed: float | None) -> tuple[Any, ...]:
        if not methods:
            raise InvalidInput("Choose at least one method.")
        with self.lock:
            if self.job is not None and not self.job.done:
                return self.look()  # another page started one; it is shown here
            self.job = job = Job()
        options = {"together": bool(together), "seed": None if seed is None else int(seed)}
        threading.Thread(
            target=self._work, args=(job, int(count), list(methods), options), name="benchmark", daemon=True
        ).start()
        return self.look()

    def _work(self, job: Job, count: int, methods: list[str], options: dict[str, Any]) -> None:
        def report(share: float, what: str) -> None:
            job.share, job.what = share, what

        try:
            desk = self.page.service.benchmarking
            job.found = desk.run(count, methods, progress=report, cancel=job.cancel, **options)
            if job.found.rows:
                job.files = self._written(job.found)
        except PalimpsestError as error:
            job.error = str(error)
        except Exception as error:  # the page must say so instead of waiting
            log.exception("the benchmark failed")
            job.error = f"Internal error, {type(error).__name__}: {error}. The log has more."
        finally:
            job.done = True

    def _stop(self) -> tuple[Any, ...]:
        if self.job is not None:
            self.job.cancel.set()
        return self.look()

    @staticmethod
    def _figures(job: Job | None) -> tuple[Any, ...]:
        if job is None or job.found is None or not job.found.rows:
            return EMPTY, gr.update(visible=False), None, None
        count = len(job.found.facts)
        head = note(f"{count} fact{'' if count == 1 else 's'}; each rate says how many questions it is over.")
        return head + show.table_html(job.found), gr.update(visible=True), *job.files

    def _written(self, found: Comparison) -> tuple[str, str]:
        """The figures as files, in a folder whose name nobody can guess, like the other downloads."""
        folder = self.page.service.settings.data / "exports" / secrets.token_hex(8)
        folder.mkdir(parents=True, exist_ok=True)
        csv, js = folder / "benchmark.csv", folder / "benchmark.json"
        csv.write_text(show.csv_text(found), encoding="utf-8")
        js.write_text(json.dumps(as_json(found), ensure_ascii=False, indent=2), encoding="utf-8")
        return str(csv), str(js)
