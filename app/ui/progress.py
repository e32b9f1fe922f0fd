"""Long work behind an event of the page: a thread does it, a generator shows how far it is."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any


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
