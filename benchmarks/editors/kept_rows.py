"""Rows of a long measurement: told as they are done, and kept in a file from which a later run goes on.

    rows = KeptRows(path, what={"model": lm.fingerprint, "facts": 100})
    if not rows.has("rome"):
        rows.add("rome", ["ROME", 97.0])           # printed to stderr at once
    rows.cells("rome")

Without a path nothing is kept. A file may hold rows of several measurements; only those of the same ``what`` count.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from knowledge.errors import InvalidInput


class KeptRows:
    """Rows by name, for one measurement.

    Args:
        path: a file of JSON lines; None keeps nothing.
        what: everything that the figures depend on.

    Raises:
        InvalidInput: the file cannot be used.
    """

    def __init__(self, path: Path | None, what: Mapping[str, Any]) -> None:
        self.path = path
        self.key = hashlib.sha256(json.dumps(dict(what), sort_keys=True, default=str).encode()).hexdigest()[:16]
        self._rows: dict[str, list[Any]] = {}
        if path is None:
            return
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
            for line in lines:
                item = _parsed(line)
                if item.get("key") == self.key:
                    self._rows[item["name"]] = item["cells"]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"Rows cannot be kept in {path}: {error}. Name another file with --keep.") from error

    def has(self, name: str) -> bool:
        return name in self._rows

    def cells(self, name: str) -> list[Any]:
        return self._rows[name]

    def add(self, name: str, cells: list[Any], *, final: bool = True) -> list[Any]:
        """Keeps a row and tells it; one that is not ``final`` is told only, and measured again by a later run."""
        self._rows[name] = cells
        print(name, *cells, sep=" | ", file=sys.stderr, flush=True)
        if self.path is not None and final:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": self.key, "name": name, "cells": cells}) + "\n")
        return cells

    def beside(self, name: str) -> Path | None:
        """A file for what a row needs to be gone on from; None where nothing is kept."""
        return None if self.path is None else self.path.with_name(f"{self.path.stem}-{self.key}-{name}.safetensors")


def _parsed(line: str) -> dict[str, Any]:
    """A line; nothing where the writer was stopped in the middle of it."""
    try:
        item = json.loads(line)
    except ValueError:
        return {}
    return item if isinstance(item, dict) and {"key", "name", "cells"} <= set(item) else {}
