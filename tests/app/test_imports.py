"""Published data sets imported as facts: recognised by their fields, record by record, with a report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from app.fact_files import read_rows
from app.service import Service
from evaluation.datasets import find
from knowledge.errors import InvalidInput
from tests.app.test_service import make
from tests.evaluation.test_datasets import COUNTERFACT, KNOWEDIT, REWRITE, ZSRE


@pytest.fixture
def real(tmp_path: Path) -> Service:
    return make(tmp_path / "data")


def write(path: Path, records: Any) -> Path:
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


MQUAKE = {
    "case_id": 1,
    "requested_rewrite": [
        REWRITE | {"question": "Where does the Eiffel Tower stand?"},
        REWRITE | {"subject": "Big Ben", "target_new": {"str": "Oslo", "id": "Q585"}},
    ],
    "questions": ["a", "b", "c"],
    "answer": "France",
    "new_answer": "Italy",
    "single_hops": [],
    "new_single_hops": [
        {"question": "q", "cloze": "c", "answer": "Rome", "answer_alias": ["Roma"]},
    ],
}
KNOWN = {"known_id": 0, "subject": "Vinson Massif", "attribute": "Antarctica", "prompt": "Vinson Massif is located in"}


@pytest.mark.parametrize(
    ("record", "statements"),
    [
        (COUNTERFACT, ["Eiffel Tower stands in the city of Rome."]),
        (ZSRE, ["What university did Watts Humphrey attend? University of Michigan."]),
        (KNOWEDIT, ["What is the birthplace of Léo Arnaud? Tokyo."]),
        (MQUAKE, ["Big Ben stands in the city of Oslo.", "Eiffel Tower stands in the city of Rome."]),
        (KNOWN, ["Vinson Massif is located in Antarctica."]),
    ],
)
def test_each_format_is_recognised(real: Service, tmp_path: Path, record: Any, statements: list[str]) -> None:
    report = real.facts.import_file(write(tmp_path / "set.json", [record]))
    assert [row.status for row in report.rows] == ["added"] * len(statements)
    assert sorted(fact.statement for fact in real.facts.page().rows) == statements


def test_a_bad_record_is_reported_and_the_good_ones_are_kept(real: Service, tmp_path: Path) -> None:
    broken = {"case_id": 8, "requested_rewrite": {"prompt": "{} is in", "subject": "Louvre"}}
    report = real.facts.import_file(write(tmp_path / "counterfact.json", [COUNTERFACT, broken, COUNTERFACT]))
    assert [(row.line, row.status) for row in report.rows] == [(1, "added"), (2, "failed"), (3, "skipped")]
    assert "lacks or mistypes 'target_new'" in report.rows[1].why
    assert report.added == 1


def test_names_of_the_answer_and_the_old_answer_come_along_and_go_round(real: Service, tmp_path: Path) -> None:
    real.facts.import_file(write(tmp_path / "mquake.json", [MQUAKE]))
    out = tmp_path / "out.csv"
    real.facts.export_file(out)
    row = next(
        row for _, row in read_rows(out) if not isinstance(row, InvalidInput) and row["subject"] == "Eiffel Tower"
    )
    assert (row["object_aliases"], row["target_true"], row["relation"]) == ("Roma", "Paris", "P131")
    again = make(tmp_path / "again")
    assert again.facts.import_file(out).added == 2


def test_jsonl_of_records(real: Service, tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in (COUNTERFACT, ZSRE)) + "\n{not json\n")
    report = real.facts.import_file(path)
    assert [row.status for row in report.rows] == ["added", "added", "failed"]


def test_progress_is_told(real: Service, tmp_path: Path) -> None:
    from app.fact_import import import_file

    path = tmp_path / "many.jsonl"
    path.write_text("\n".join(json.dumps([f"Thing {n}", "colour", f"shade {n}"]) for n in range(600)))
    seen: list[tuple[float, str]] = []
    report = import_file(real.engine, real.facts._reader, path, progress=lambda share, text: seen.append((share, text)))
    assert report.added == 600
    assert [share for share, _ in seen] == sorted(share for share, _ in seen)
    assert seen[-1] == (1.0, "many.jsonl: 600 rows read")
    assert len(seen) >= 3


def test_the_sample_of_mquake(real: Service) -> None:
    try:
        path = find("mquake_hard")
    except Exception:
        pytest.skip("no sample of MQuAKE here; see evaluation.datasets")
    report = real.facts.import_file(path)
    assert {row.status for row in report.rows} <= {"added", "skipped", "replaced"}
    assert real.facts.count() >= 300


def test_a_folder_and_an_empty_file_are_told_apart(real: Service, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is a folder"):
        real.facts.import_file(tmp_path)
    empty = tmp_path / "empty.csv"
    empty.touch()
    with pytest.raises(InvalidInput, match="holds no facts"):
        real.facts.import_file(empty)


def test_a_name_that_ends_in_a_stop_keeps_it(real: Service, tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text(
        'subject,relation,object\nRex,owner,"Acme, Inc."\nTim,owner,Anna.\nBig Ben,located_in,"Washington, D.C."\n',
        encoding="utf-8",
    )
    real.facts.import_file(path)
    assert {(fact.object, fact.statement) for fact in real.facts.page("").rows} == {
        ("Acme, Inc.", "The owner of Rex is Acme, Inc."),
        ("Anna", "The owner of Tim is Anna."),
        ("Washington, D.C.", "Big Ben is located in Washington, D.C."),
    }
