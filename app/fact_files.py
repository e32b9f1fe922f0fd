"""Facts as files: CSV, JSON and JSONL, row by row, a bad row becoming an error in its place.

A row is a sentence (``text``), or ``subject``, ``relation`` and ``object``, with ``prompt``, ``question``,
``cardinality`` and ``source`` where given. What :func:`write_rows` writes, :func:`read_rows` reads.

The published files of CounterFact, zsRE, MQuAKE, KnowEdit, RippleEdits and known_1000 are recognised by their fields; a
record of theirs gives a row for every edit in it, numbered as the record.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from knowledge.errors import InvalidInput

if TYPE_CHECKING:
    from evaluation.datasets.cases import EditCase

COLUMNS = (
    "subject", "relation", "object", "statement", "prompt", "question", "cardinality", "status", "valid_from",
    "valid_to", "recorded_at", "source", "actor", "target_true", "object_aliases",
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
            item = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, InvalidInput(f"This line is not JSON: {error}.")
        else:
            yield from _item_rows(number, item)


def _json_rows(text: str, name: str) -> Iterator[Row]:
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{name} is not JSON: {error}.") from error
    if isinstance(data, dict):
        data = data.get("facts") or data.get("K_F") or [data]
    if not isinstance(data, list):
        raise InvalidInput(f"{name} must hold a list of facts, or an object with the list under 'facts'.")
    for number, item in enumerate(data, start=1):
        yield from _item_rows(number, item)


def _item_rows(number: int, item: object) -> Iterator[Row]:
    """The rows of one record: one, or as many as a record of a published data set has edits."""
    try:
        reader = _published(item)
        rows = list(_edit_rows(reader, item)) if reader is not None else [_row(item)]
    except InvalidInput as error:
        yield number, error
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        yield number, InvalidInput(f"This record lacks or mistypes {error}.")
    else:
        for row in rows:
            yield number, row


def _published(item: object) -> Callable[[list[Any]], Iterator[EditCase]] | None:
    """The reader of the published data set that a record comes from, told by its fields."""
    if not isinstance(item, dict):
        return None
    from evaluation.datasets import counterfact, knowedit, known, mquake, ripple, zsre

    if isinstance(item.get("requested_rewrite"), list):
        return mquake.cases
    if isinstance(item.get("requested_rewrite"), dict):
        return counterfact.cases
    if {"src", "alt", "subject"} <= set(item):
        return zsre.cases
    if isinstance(item.get("edit"), dict) and "prompt" in item["edit"]:
        return ripple.cases
    if {"known_id", "subject", "attribute", "prompt"} <= set(item):
        return known.cases
    if "target_new" in item and "ground_truth" in item and "question" in item and "subject" not in item:
        return lambda records: knowedit.sanitation({"K_F": records, "K_R": records})
    asks = ("subject" in item or "concept" in item) and ("prompt" in item or "text" in item)
    if asks and isinstance(item.get("target_new", item.get("labels")), (list, str)) and _groups(item):
        return knowedit.cases
    return None


def _groups(item: dict[str, Any]) -> bool:
    """Whether a record has the parts that only KnowEdit has beside a subject and a prompt."""
    return any(name in item for name in ("portability", "locality", "rephrase", "rephrase_prompt", "concept"))


def _edit_rows(reader: Callable[[list[Any]], Iterator[EditCase]], item: object) -> Iterator[dict[str, str]]:
    found = False
    for case in reader([item]):
        for edit in case.edits:
            found = True
            row = {"subject": edit.subject, "relation": edit.relation, "object": edit.target_new}
            row |= {"prompt": edit.prompt, "question": edit.question, "target_true": edit.target_true}
            if edit.aliases:
                row["object_aliases"] = "|".join(name.replace("|", " ") for name in edit.aliases)
            yield {name: value for name, value in row.items() if value}
    if not found:
        raise InvalidInput("This record has no edit that could be read.")


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


def _cell(value: Any) -> Any:
    """A list of names as one text, as :func:`read_rows` takes it."""
    return "|".join(name.replace("|", " ") for name in value) if isinstance(value, (list, tuple)) else value


def write_rows(path: Path, facts: Sequence[dict[str, Any]]) -> None:
    """Writes beside the target and then replaces it, so that a full disk leaves the old file whole.

    Raises:
        InvalidInput: an unknown ending, or the place cannot be written to.
    """
    rows = [{name: _cell(fact.get(name)) for name in COLUMNS} for fact in facts]
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
