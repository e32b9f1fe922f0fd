"""The Gradio user interface, one file a tab. Importing this package imports Gradio; the command line does so late."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Read by Gradio when it is imported: nothing is reported anywhere, and no input is kept in the browser's storage.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


@contextmanager
def _no_stub_files() -> Iterator[None]:
    """Keeps Gradio from parsing its own sources to write .pyi files into site-packages while it is imported.

    That is for editors only, takes half of the import's time, and fails on read-only installations anyway. Gradio
    leaves it out for a component whose source file is unknown, so that is what it is told.
    """
    original = inspect.getfile

    def getfile(thing: Any) -> str:
        if sys._getframe(1).f_globals.get("__name__") == "gradio.component_meta":
            raise OSError("no stub files")
        return original(thing)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = original


with _no_stub_files():
    import gradio  # noqa: F401
