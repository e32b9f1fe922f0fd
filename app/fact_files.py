"""Facts as files: CSV, JSON and JSONL, row by row, a bad row becoming an error in its place.

A row is a sentence (``text``), or ``subject``, ``relation`` and ``object``, with ``prompt``, ``question``,
``cardinality`` and ``source`` where given. What :func:`write_rows` writes, :func:`read_rows` reads.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from knowledge.errors import InvalidInput

COLUMNS = (
    "subject", "relation", "object", "statement", "prompt", "question", "cardinality", "status", "valid_from",
    "valid_to", "recorded_at", "source", "actor",
)  # fmt: skip
_NAMES = {"sentence": "text", "fact": "text", "target": "object", "target_new": "object"}

Row = tuple[int, dict[str, str] | InvalidInput]


def read_rows(path: Path) -> Iterator[Row]:
    """(line number, row) of each row.

    Raises:
        InvalidInput: the file as a whole cannot be read: its ending, its encoding, or JSON that is no list.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path.name} is not UTF-8 text: {error}. Save it as UTF-8 and try again.") from error
    kind = path.suffix.lower()
    if kind == ".csv":
        return _csv_rows(text)
    if kind == ".jsonl":
        return _jsonl_rows(text)
    if kind == ".json":
        return _json_rows(text, path.name)
    raise InvalidInput(f"{path.name} has an unknown ending. Available: .csv, .json, .jsonl.")


def _csv_rows(text: str) -> Iterator[Row]:
    lines = text.splitlines(keepends=True)
    if not lines:
        return
    delimiter = max((",", ";", "\t"), key=lines[0].count)
    reader = csv.reader(lines, delimiter=delimiter)
    try:
        head = [_name(cell) for cell in next(reader)]
        if "text" not in head and not {"subject", "object"} <= set(head):
            raise InvalidInput(
                f"The header of the CSV names {', '.join(head)}. It needs 'text', "
                "or 'subject', 'relation' and 'object'."
            )
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(head):
                yield reader.line_num, InvalidInput(f"This row has {len(cells)} cells, but the header has {len(head)}.")
            else:
                yield reader.line_num, dict(zip(head, cells, strict=True))
    except csv.Error as error:
        yield reader.line_num, InvalidInput(f"The CSV cannot be read from here on: {error}.")


def _jsonl_rows(text: str) -> Iterator[Row]:
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            yield number, _row(json.loads(line))
        except json.JSONDecodeError as error:
            yield number, InvalidInput(f"This line is not JSON: {error}.")
        except InvalidInput as error:
            yield number, error


def _json_rows(text: str, name: str) -> Iterator[Row]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{name} is not JSON: {error}.") from error
    if isinstance(data, dict):
        data = data.get("facts", [data])
    if not isinstance(data, list):
        raise InvalidInput(f"{name} must hold a list of facts, or an object with the list under 'facts'.")
    for number, item in enumerate(data, start=1):
        try:
            yield number, _row(item)
        except InvalidInput as error:
            yield number, error


def _row(item: object) -> dict[str, str]:
    if isinstance(item, str):
        return {"text": item}
    if isinstance(item, (list, tuple)) and len(item) == 3:
        return dict(zip(("subject", "relation", "object"), map(str, item), strict=True))
    if not isinstance(item, dict):
        raise InvalidInput("A fact is an object, a sentence, or a list of subject, relation and object.")
    return {_name(str(name)): value for name, value in item.items() if isinstance(value, str)}


def _name(cell: str) -> str:
    name = cell.strip().lower()
    return _NAMES.get(name, name)


def write_rows(path: Path, facts: Sequence[dict[str, Any]]) -> None:
    """Writes beside the target and then replaces it, so that a full disk leaves the old file whole.

    Raises:
        InvalidInput: an unknown ending, or the place cannot be written to.
    """
    rows = [{name: fact.get(name) for name in COLUMNS} for fact in facts]
    kind = path.suffix.lower()
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="") as out:
            if kind == ".csv":
                writer = csv.DictWriter(out, COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
            elif kind == ".json":
                json.dump({"facts": rows}, out, ensure_ascii=False, indent=1)
            elif kind == ".jsonl":
                out.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            else:
                raise InvalidInput(f"{path.name} has an unknown ending. Available: .csv, .json, .jsonl.")
        os.replace(partial, path)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be written: {error.strerror}. Choose another place.") from error
    finally:
        partial.unlink(missing_ok=True)
