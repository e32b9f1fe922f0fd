"""The most memory that a process held since a moment, by looking every few milliseconds.

    memory = PeakMemory()
    ...
    memory.stop()               # bytes above what was held at the start

The kernel's own high-water mark cannot be set back: a model's loading may stand higher than all that follows.
"""

from __future__ import annotations

import threading

import psutil

_EVERY = 0.005  # seconds


class PeakMemory:
    """Starts at once."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self._start = self._most = self._held()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> int:
        self._done.set()
        self._thread.join()
        return max(self._most, self._held()) - self._start

    def _held(self) -> int:
        return int(self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._done.wait(_EVERY):
            self._most = max(self._most, self._held())
