"""Text to HTML and Markdown. Everything that a user, a file or a model wrote passes through here, escaped.

``esc`` for HTML that we build, ``safe_markdown`` for chat bubbles, ``guarded`` for the event handlers: an error that
the program foresees becomes a toast with its message, escaped, since Gradio shows toasts as HTML.
"""

from __future__ import annotations

import functools
import html
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import gradio as gr

from knowledge.errors import PalimpsestError

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|~$])")
_CODE = re.compile(r"(```.*?(?:```|\Z)|`[^`\n]+`)", re.DOTALL)


def esc(value: object) -> str:
    """HTML-escaped text, fit for content and for quoted attributes."""
    return html.escape(str(value), quote=True)


def safe_markdown(text: str) -> str:
    """Markdown in which HTML shows as the characters it is made of; code keeps its own escaping."""
    parts = _CODE.split(text)
    return "".join(part if index % 2 else _escape_angles(part) for index, part in enumerate(parts))


def literal(text: object) -> str:
    """Markdown that shows the very characters of the text, on one line: no markup, no links, no HTML."""
    return _escape_angles(_MARKUP.sub(r"\\\1", " ".join(str(text).split())))


def _escape_angles(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def toast(message: object) -> gr.Error:
    """A foreseen error as a toast."""
    return gr.Error(esc(message), title="That did not work", duration=12, print_exception=False)


def failure(error: Exception) -> Exception:
    """What an event handler shows of an error: our own word for word, others as what they are, with the log's help."""
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, PalimpsestError):
        return toast(error)
    log.exception("an event handler failed", exc_info=error)
    return toast(f"Internal error, {type(error).__name__}: {error}. The log has more.")


def spoken(fn: F) -> F:
    """Gives an error of a public endpoint as it is: programs read it, so nothing is escaped for a page."""

    @functools.wraps(fn)
    def plain(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except PalimpsestError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:
            raise failure(error) from error

    return plain  # type: ignore[return-value]


def guarded(fn: F) -> F:
    """Shows an error of an event handler, plain or generator, as a toast; never as a traceback."""
    if inspect.isgeneratorfunction(fn):

        @functools.wraps(fn)
        def generator(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from fn(*args, **kwargs)
            except Exception as error:
                raise failure(error) from error

        return generator  # type: ignore[return-value]

    @functools.wraps(fn)
    def plain(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except Exception as error:
            raise failure(error) from error

    return plain  # type: ignore[return-value]


def when(moment: str | None) -> str:
    """A stored time as people read it: today's as the hour, others as the day."""
    if not moment:
        return ""
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        return esc(moment)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    local = at.astimezone()
    today = datetime.now().astimezone().date()
    return local.strftime("%H:%M") if local.date() == today else local.strftime("%-d %b %Y")


def exactly(moment: str | None) -> str:
    """A stored time to the minute, in local time."""
    if not moment:
        return ""
    try:
        at = datetime.fromisoformat(moment)
    except ValueError:
        return esc(moment)
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at
    return at.astimezone().strftime("%-d %b %Y, %H:%M")


def seconds(value: float | None) -> str:
    """A duration in words short enough for a table."""
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s" if value < 60 else f"{value / 60:.1f} min"


def button(act: str, label: str, *, key: object = "", title: str = "", kind: str = "") -> str:
    """A button inside our own HTML; :data:`ACTIONS` turns its click into a Gradio event."""
    tip = f' title="{esc(title)}" aria-label="{esc(title)}"' if title else ""
    data = f'data-act="{esc(act)}" data-key="{esc(key)}"'
    return f'<button type="button" class="act {kind}" {data}{tip}>{esc(label)}</button>'


def note(text: str, kind: str = "quiet") -> str:
    """One line of help or of a result."""
    return f'<p class="note {kind}">{esc(text)}</p>'


ACTIONS = """
element.addEventListener('click', (event) => {
  const hit = event.target.closest('[data-act]');
  if (!hit || !element.contains(hit)) return;
  trigger('click', {act: hit.dataset.act, key: hit.dataset.key});
});
"""
"""``js_on_load`` of a ``gr.HTML`` whose buttons are made by :func:`button`; read them with :func:`action_of`."""


def action_of(event: gr.EventData) -> tuple[str, str]:
    """Which button was pressed and for which row; empty for a click beside the buttons."""
    data = event._data if isinstance(event._data, dict) else {}
    return str(data.get("act", "")), str(data.get("key", ""))


def progress_bar(share: float, what: str) -> str:
    """A progress line that is part of the page, so that it stays where the work was started."""
    percent = max(0, min(100, round(share * 100)))
    return (
        f'<div class="progress" role="progressbar" aria-valuenow="{percent}" aria-valuemin="0" aria-valuemax="100">'
        f'<span style="width:{percent}%"></span></div><p class="note quiet">{esc(what)} · {percent} %</p>'
    )
