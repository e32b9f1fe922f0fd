"""The page: header, chat on the left, tabs on the right; and how it is served.

blocks = build_blocks(service)
serve(service, blocks)          # blocks until stopped
"""

from __future__ import annotations

import os
from typing import Any

import gradio as gr

from app.ui.benchmark import BenchmarkTab
from app.ui.chat import ChatTab
from app.ui.compare import CompareTab
from app.ui.endpoints import add_endpoints
from app.ui.evidence import build_evidence_tab
from app.ui.facts import FactsTab
from app.ui.page import Page
from app.ui.render import guarded
from app.ui.theme import CSS_FILE, JS_FILE, make_theme
from app.ui.weights import WeightsTab

IDENTITY = """() => {
  let owner = localStorage.getItem('palimpsest.browser') || '';
  return owner + ' ' + (sessionStorage.getItem('palimpsest.chat') || '');
}"""
REMEMBER = """(owner, chat) => {
  localStorage.setItem('palimpsest.browser', owner);
  sessionStorage.setItem('palimpsest.chat', chat);
  window.palimpsest = {owner, chat};
}"""


def build_blocks(service: Any) -> gr.Blocks:
    """The whole interface over a service (or a fake of it). Nothing here waits for the model."""
    page = Page(service)
    chat, facts, compare, weights = ChatTab(page), FactsTab(page), CompareTab(page), WeightsTab(page)
    benchmark = BenchmarkTab(page)
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    with gr.Blocks(title="Palimpsest", analytics_enabled=False, fill_width=True) as blocks:
        page.header = gr.HTML(page.header_html(), elem_id="header")
        page.owner = gr.Textbox(visible=False, label="owner")
        page.chat = gr.Textbox(visible=False, label="chat")
        identity = gr.Textbox(visible=False, label="identity")
        with gr.Row(elem_id="columns"):
            with gr.Column(scale=3, min_width=320, elem_id="left"):
                chat.build()
            with gr.Column(scale=2, min_width=320, elem_id="right"), gr.Tabs(elem_id="tabs"):
                with gr.Tab("Evidence", id="evidence"):
                    evidence = build_evidence_tab()
                with gr.Tab("Facts", id="facts") as facts_tab:
                    facts.build()
                with gr.Tab("Compare", id="compare") as compare_tab:
                    compare.build()
                with gr.Tab("Weights", id="weights") as weights_tab:
                    weights.build()
                with gr.Tab("Benchmark", id="benchmark") as benchmark_tab:
                    benchmark.build()
        chat.wire(evidence)
        facts.wire(facts_tab)
        compare.wire()
        weights.wire()
        benchmark.wire()
        opened = [page.owner, page.chat, chat.box, chat.earlier, evidence]
        blocks.load(chat.on_load, [identity], opened, js=IDENTITY, queue=False, **quiet).then(
            None, [page.owner, page.chat], None, js=REMEMBER
        ).then(chat.may_correct, [page.owner, page.chat], [chat.meant_open, chat.meant_row], queue=False, **quiet)
        blocks.load(facts.table_html, None, [facts.table, facts.number], queue=False, **quiet)
        weights_tab.select(
            guarded(weights.on_show), [weights.method, weights.gone],
            [weights.stored, weights.table, weights.method, weights.about], **quiet,
        )  # fmt: skip
        compare_tab.select(
            guarded(compare.on_show), None, [compare.stored, compare.methods, compare.missing], queue=False, **quiet
        )
        benchmark_tab.select(
            guarded(benchmark.on_show), None, [benchmark.methods, benchmark.missing, *benchmark.shown], queue=False,
            **quiet,
        )  # fmt: skip
        _watch_loading(page, blocks, quiet)
        add_endpoints(page)
    return blocks


def _watch_loading(page: Page, blocks: gr.Blocks, quiet: dict[str, Any]) -> None:
    """Refreshes the header until the model is there, then leaves the server alone."""
    timer = gr.Timer(1.0, active=True)

    def look() -> tuple[str, Any]:
        waiting = page.service.status().state in ("cold", "loading")
        return page.header_html(), gr.Timer(active=waiting)

    timer.tick(look, None, [page.header, timer], queue=False, **quiet)


def launch_options(service: Any) -> dict[str, Any]:
    """What ``Blocks.launch`` is given, by :func:`serve` and by the tests alike."""
    settings = service.settings
    exports = settings.data / "exports"
    exports.mkdir(parents=True, exist_ok=True)
    return {
        "server_name": settings.host,
        "server_port": settings.port,
        "theme": make_theme(),
        "css_paths": [CSS_FILE],
        "js": JS_FILE.read_text(encoding="utf-8"),
        "allowed_paths": [str(exports.resolve())],
        "max_file_size": settings.max_upload_mb * 1024 * 1024,
        "run_history": False,
        "enable_monitoring": False,
        "footer_links": [],
        "share": False,
        "ssr_mode": False,
        "quiet": True,
        "show_error": False,
        "inbrowser": False,
        "strict_cors": True,
        "mcp_server": False,
        "pwa": False,
    }


def serve(service: Any, blocks: gr.Blocks, *, block: bool = True) -> str:
    """Serves the interface; gives its address (at once with ``block=False``).

    Raises:
        OSError: the port is taken.
    """
    for name in ("NO_PROXY", "no_proxy"):  # Gradio asks itself over HTTP whether it is up; no proxy can answer that
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), "127.0.0.1", "localhost"]))
    blocks.queue(default_concurrency_limit=4, max_size=64)
    try:
        blocks.launch(**launch_options(service), prevent_thread_lock=True)
    except ValueError:  # its second look at itself gives up after 3 s, which a busy machine may need
        if not blocks.is_running:
            raise
    if block:
        blocks.block_thread()
    return str(blocks.local_url)
