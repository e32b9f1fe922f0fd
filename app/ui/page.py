"""What the tabs share: the service, the header line, who is looking, and the work that can be stopped."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app.ui.render import esc, note
from app.views import Status

MODEL_SLOT = "model"
"""``concurrency_id`` of every event that computes with the model: one at a time, the others wait in the queue."""

REFRESH: dict[str, Any] = {
    "queue": False,  # a quick look needs no turn in the queue
    "trigger_mode": "always_last",  # one that comes while another is under way waits; the browser would drop it
    "show_progress": "hidden",
    "api_visibility": "private",
}
"""Options of an event that shows anew what another has changed."""


def when_known(*inputs: str) -> str:
    """JavaScript for an event whose inputs are these: it waits until the page knows its browser and its chat.

    Args:
        inputs: the names of the event's inputs; for "owner" and "chat" it hands over what the page knows by then.
    """
    known = ", ".join(f"window.palimpsest.{name}" if name in ("owner", "chat") else name for name in inputs)
    return (
        f"async ({', '.join(inputs)}) => "
        "{ while (!window.palimpsest) await new Promise((done) => setTimeout(done, 50)); "
        f"return [{known}]; }}"
    )


class Runs:
    """Work in progress by name; starting a name again, or stopping it, cancels what runs under it."""

    def __init__(self) -> None:
        self._events: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def start(self, name: str) -> threading.Event:
        event = threading.Event()
        with self._lock:
            old = self._events.get(name)
            if old is not None:
                old.set()
            self._events[name] = event
        return event

    def current(self, name: str) -> threading.Event | None:
        with self._lock:
            return self._events.get(name)

    def stop(self, name: str) -> bool:
        event = self.current(name)
        if event is not None:
            event.set()
        return event is not None

    def end(self, name: str, event: threading.Event) -> None:
        with self._lock:
            if self._events.get(name) is event:
                del self._events[name]


@dataclass
class Page:
    """One per application, not per visitor."""

    service: Any  # app.service.Service, or a fake of it
    runs: Runs = field(default_factory=Runs)
    header: gr.HTML | None = None
    owner: gr.Textbox | None = None  # the browser's secret; travels with each event, like a cookie
    chat: gr.Textbox | None = None  # the chat that this browser tab shows

    def method_choices(self) -> tuple[dict[str, Any], str]:
        """The methods to tick, and a note on those that the loaded model lacks a trained network for."""
        missing = self.service.weights.unavailable()
        methods = self.service.comparing.methods()
        choices = [(f"{m.title} (not available)" if m.name in missing else m.title, m.name) for m in methods]
        told = "".join(note(f"{m.title} {missing[m.name]}.") for m in methods if m.name in missing)
        return gr.update(choices=choices), told

    def header_html(self) -> str:
        return status_html(self.service.status())


_STATES = {"cold": "asleep", "loading": "loading", "ready": "ready", "failed": "not available"}


def status_html(status: Status) -> str:
    """The line on top: title, model, facts, active weight edits."""
    facts = f"{status.facts:,} fact{'' if status.facts == 1 else 's'}"
    edits = f"{status.weight_edits} weight edit{'' if status.weight_edits == 1 else 's'} on"
    detail = f' title="{esc(status.detail)}"' if status.detail else ""
    return (
        '<div class="pal-head"><h1 class="pal-title" data-under="scriptio inferior">Palimpsest</h1>'
        '<p class="pal-status" role="status">'
        f'<span class="dot {status.state}"></span><span{detail}><b>{esc(status.model)}</b> '
        f'<span class="quiet">{_STATES[status.state]}</span></span>'
        f'<span class="sep"></span><span>{facts}</span><span class="sep"></span><span>{edits}</span></p></div>'
    )
