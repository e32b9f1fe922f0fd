"""Long work behind an event of the page: a thread does it, a generator shows how far it is."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr


def with_progress(
    work: Callable[[Callable[[float, str], None]], Any], first: str = "waiting for the model"
) -> Iterator[Any]:
    """Runs ``work(progress)`` in a thread; yields its (share, what) reports as they come, and its result last.

    Args:
        first: what is told until the work reports something itself.
    """
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
    yield 0.0, first
    while (report := reports.get()) is not None:
        while not reports.empty() and reports.queue[0] is not None:
            report = reports.get()
        yield report
    thread.join()
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    yield outcome[0]


def reopening(
    steps: Callable[..., Iterator[tuple[Any, ...]]], count: int, *buttons: Any
) -> Callable[..., Iterator[tuple[Any, ...]]]:
    """The same steps for an event that has buttons among its outputs, behind its other ``count`` ones.

    After an error Gradio runs no ``.then``, so a button that the start of the work took away would never come back,
    and the progress (the first output) would stand still. Here the first is emptied and the buttons get their updates.
    """

    def run(*given: Any) -> Iterator[tuple[Any, ...]]:
        try:
            for step in steps(*given):
                yield *step, *(gr.skip() for _ in buttons)
        except Exception:
            yield "", *(gr.skip() for _ in range(count - 1)), *buttons
            raise

    return run
