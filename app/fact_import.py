"""Importing a file of facts in batches, with a report row by row; the whole import is one step of undo."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.engine import Engine
from app.errors import TooLarge
from app.fact_files import read_rows
from app.fact_reader import FactReader
from app.views import ImportReport, ImportRow
from knowledge.errors import InvalidInput, PalimpsestError
from memory.errors import StorageFailure

if TYPE_CHECKING:
    from memory.writing import Draft

BATCH = 256  # rows embedded and committed together


Progress = Callable[[float, str], None]  # share of the file done, what is being done


def import_file(engine: Engine, reader: FactReader, path: Path, progress: Progress | None = None) -> ImportReport:
    """Stores the rows of a CSV, JSON or JSONL file. A bad row is reported and never stops the good ones.

    Args:
        progress: told after each batch how far the import is.

    Raises:
        PalimpsestError: the file as a whole cannot be read, or is over the limit.
    """
    if path.is_dir():
        raise InvalidInput(f"{path} is a folder. Name a CSV, JSON or JSONL file in it.")
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}. Check the path.")
    limit = engine.settings.max_upload_mb
    if path.stat().st_size > limit * 1024 * 1024:
        raise TooLarge(f"{path.name} has more than {limit} MiB, the limit for imports. Split it.")
    run = _Import(engine, reader, path.name)
    rows = list(read_rows(path))
    if not rows:
        raise InvalidInput(f"{path.name} holds no facts. A CSV file needs a line of column names and a line a fact.")
    for number, (line, row) in enumerate(rows):
        run.take(line, row)
        if progress is not None and number % BATCH == 0:
            progress(number / len(rows), f"{path.name}: row {number} of {len(rows)}")
    run.flush()
    if progress is not None:
        progress(1.0, f"{path.name}: {len(rows)} rows read")
    added = sum(row.status in ("added", "replaced") for row in run.rows)
    return ImportReport(added, len(run.rows) - added, tuple(sorted(run.rows, key=lambda row: row.line)))


class _Import:
    def __init__(self, engine: Engine, reader: FactReader, source: str) -> None:
        self._engine, self._reader, self._source = engine, reader, source
        self._waiting: list[tuple[int, str, Draft]] = []
        self._action: int | None = None
        self.rows: list[ImportRow] = []

    def take(self, line: int, row: dict[str, str] | InvalidInput) -> None:
        from memory.writing import Draft

        try:
            if isinstance(row, InvalidInput):
                raise row
            if row.get("status", "") not in ("", "current", "active"):
                self.rows.append(ImportRow(line, "skipped", _shown(row), f"not in force ({row['status']})"))
                return
            word = self._reader.word(self._reader.parts(row["text"]) if row.get("text") else _parts(row))
        except PalimpsestError as error:
            self.rows.append(ImportRow(line, "failed", _shown(row), str(error)))
            return
        space = self._engine.settings.namespace
        draft = Draft(
            word,
            space,
            source=row.get("source") or self._source,
            object_aliases=tuple(filter(None, (row.get("object_aliases") or "").split("|"))),
            target_true=row.get("target_true") or None,
        )
        self._waiting.append((line, word.statement, draft))
        if len(self._waiting) >= BATCH:
            self.flush()

    def flush(self) -> None:
        try:
            results: list[Any] = self._engine.store.add_many(
                [draft for *_, draft in self._waiting], action=self._action
            )
        except StorageFailure:
            raise  # a full disk concerns every row
        except PalimpsestError:
            results = [self._alone(draft) for *_, draft in self._waiting]
        for (line, text, _), written in zip(self._waiting, results, strict=True):
            if isinstance(written, PalimpsestError):
                self.rows.append(ImportRow(line, "failed", text, str(written)))
                continue
            self._action = written.action if self._action is None else self._action
            if written.duplicate:
                self.rows.append(ImportRow(line, "skipped", text, "memory says so already"))
            else:
                self.rows.append(ImportRow(line, "replaced" if written.superseded_id else "added", text))
        self._waiting.clear()

    def _alone(self, draft: Draft) -> Any:
        """One row by itself, after its batch was refused; its error, where it is the one at fault."""
        try:
            (written,) = self._engine.store.add_many([draft], action=self._action)
        except StorageFailure:
            raise
        except PalimpsestError as error:
            return error
        self._action = written.action if self._action is None else self._action
        return written


def _parts(row: dict[str, str]) -> dict[str, Any]:
    names = ("relation", "prompt", "question", "statement", "cardinality")
    parts: dict[str, Any] = {name: row.get(name) or None for name in names}
    return parts | {"subject": row.get("subject", ""), "object": row.get("object", "")}


def _shown(row: dict[str, str] | InvalidInput) -> str:
    return "" if isinstance(row, InvalidInput) else ", ".join(value for value in row.values() if value)[:200]
