"""The public endpoints: the same words as the command line, for ``gradio_client`` and for plain HTTP.

    client = gradio_client.Client("http://127.0.0.1:7860")
    client.predict("Where is the Eiffel Tower?", "auto", "auto", api_name="/ask")

Every other event of the page is private: it carries a browser's identity and has no meaning outside the page.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.errors import TooLarge
from app.ui.page import MODEL_SLOT, Page
from app.ui.render import spoken
from app.views import as_json


def add_endpoints(page: Page) -> None:
    """Adds ``/ask``, ``/route``, ``/facts_add``, ``/facts_list``, ``/facts_undo`` and ``/status`` to the Blocks."""
    service = page.service

    def limited(text: str, limit: int) -> str:
        if len(text) > limit:
            raise TooLarge(f"The text has {len(text):,} characters; at most {limit:,} are taken. Shorten it.")
        return text

    def ask(question: str, mode: str = "auto", strategy: str = "auto") -> dict[str, Any]:
        """Answers a question; the shape is that of ``ask --json``."""
        found: dict[str, Any] = service.ask(
            limited(question, service.settings.max_message), mode=mode, strategy=strategy
        )
        return found

    def route(question: str) -> dict[str, Any]:
        """The gate's verdict only; no model runs."""
        found: dict[str, Any] = service.route(limited(question, service.settings.max_message))
        return found

    def facts_add(sentence: str) -> dict[str, Any]:
        """Stores a fact given as one sentence; a functional relation's old object is superseded."""
        found: dict[str, Any] = as_json(service.facts.add(limited(sentence, service.settings.max_fact), source="api"))
        return found

    def facts_list(query: str = "", number: int = 1) -> dict[str, Any]:
        """One page of facts."""
        found: dict[str, Any] = as_json(service.facts.page(query, page=number))
        return found

    def facts_undo() -> dict[str, Any]:
        """Takes the last change of facts back."""
        found: dict[str, Any] = as_json(service.facts.undo())
        return found

    def status() -> dict[str, Any]:
        """What answers and what has been written over."""
        found: dict[str, Any] = as_json(service.status())
        return found

    gr.api(spoken(ask), api_name="ask", concurrency_id=MODEL_SLOT, concurrency_limit=1)
    for fn in (route, facts_add, facts_list, facts_undo, status):
        gr.api(spoken(fn), api_name=fn.__name__)
