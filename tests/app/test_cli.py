"""The command line over a fake service: shapes, exit codes, errors."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

Cli = Callable[..., Result]
CliJson = Callable[..., Any]

EIFFEL = "The Eiffel Tower is located in Rome."


def test_ask_gives_exactly_the_documented_shape(cli_json: CliJson) -> None:
    found = cli_json("ask", "Where is the Eiffel Tower?")
    assert list(found) == ["answer", "source", "strategy", "hits", "gate", "steps", "weight_edits", "seconds"]
    assert found["answer"] == "Paris" and found["source"] == "model" and found["hits"] == []
    assert set(found["gate"]) == {"in_scope", "score", "threshold"}


def test_a_fact_changes_the_answer_and_undo_takes_it_back(cli_json: CliJson) -> None:
    added = cli_json("facts", "add", EIFFEL)
    assert added["fact"]["statement"] == EIFFEL and added["superseded"] is None and added["duplicate"] is False
    found = cli_json("ask", "Where is the Eiffel Tower?")
    assert found["answer"] == "Rome" and found["source"] == "memory"
    assert found["hits"][0] | {"score": 0} == {"fact_id": 1, "text": EIFFEL, "score": 0}
    assert cli_json("ask", "Where is Big Ben?")["answer"] == "London"
    cli_json("facts", "undo")
    assert cli_json("ask", "Where is the Eiffel Tower?")["answer"] == "Paris"
    cli_json("facts", "redo")
    assert cli_json("ask", "Where is the Eiffel Tower?")["answer"] == "Rome"


def test_a_fact_in_parts_and_one_that_supersedes(cli_json: CliJson) -> None:
    cli_json("facts", "add", EIFFEL)
    parts = ("--subject", "Eiffel Tower", "--relation", "location", "--object", "London")
    outcome = cli_json("facts", "add", *parts)
    assert outcome["superseded"]["object"] == "Rome" and outcome["fact"]["object"] == "London"
    assert [fact["id"] for fact in cli_json("facts", "list")["facts"]] == [2]
    assert len(cli_json("facts", "list", "--all")["facts"]) == 2
    assert cli_json("facts", "add", *parts)["duplicate"] is True


def test_facts_edit_remove_history_search(cli: Cli, cli_json: CliJson) -> None:
    cli_json("facts", "add", EIFFEL)
    assert cli_json("facts", "edit", "1", "--object", "Berlin")["fact"]["object"] == "Berlin"
    assert cli_json("facts", "search", "Eiffel")["hits"][0]["fact"]["object"] == "Berlin"
    assert cli_json("facts", "history", "2")["events"][0]["op"] == "add"
    assert cli_json("facts", "remove", "2", "--reason", "wrong")["status"] == "retired"
    assert cli("facts", "search", "Eiffel").exit_code == 1


def test_weights_apply_switch_undo_redo(cli_json: CliJson, tmp_path: Path) -> None:
    entry = cli_json("weights", "apply", "--method", "r-rome", EIFFEL)
    assert entry["active"] and entry["method"] == "r-rome" and entry["facts"] == [EIFFEL]
    found = cli_json("ask", "Where is the Eiffel Tower?")
    assert (found["answer"], found["source"]) == ("Rome", "model") and found["weight_edits"][0]["id"] == 1
    cli_json("weights", "off", "1")
    assert cli_json("ask", "Where is the Eiffel Tower?")["answer"] == "Paris"
    cli_json("weights", "on", "1")
    assert cli_json("weights", "undo", "1")["undone"] is True
    assert cli_json("weights", "list")["entries"] == []
    assert cli_json("weights", "redo", "1")["active"] is True
    assert len(cli_json("weights", "list", "--all")["entries"]) == 1
    assert Path(cli_json("weights", "export", str(tmp_path / "out"))["path"]).is_dir()


def test_weights_apply_takes_a_stored_fact(cli_json: CliJson) -> None:
    cli_json("facts", "add", EIFFEL)
    assert cli_json("weights", "apply", "--fact", "1")["facts"] == [EIFFEL]


def test_compare_gives_figures_and_probes(cli_json: CliJson, cli: Cli) -> None:
    found = cli_json("compare", EIFFEL, "--method", "base", "--method", "ike")
    assert [row["method"] for row in found["rows"]] == ["base", "ike"]
    assert found["rows"][1]["cells"]["efficacy"]["n"] == 12
    assert found["probes"][0]["answers"]["base"]["right"] is False
    text = cli("compare", EIFFEL, "--probes").stdout
    assert "efficacy" in text and "[0.75, 0.95] n=12" in text and "NO Paris" in text


def test_route_of_a_file_keeps_order_and_reports_bad_lines(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "queries.jsonl"
    path.write_text('{"query": "Where is Big Ben?"}\n\n"Where is the Colosseum?"\n{"x": 1}\n{broken\nplain question\n')
    result = cli("route", "--file", str(path))
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    asked = ["Where is Big Ben?", "Where is the Colosseum?", None, None, "plain question"]
    assert [line.get("query") for line in lines] == asked
    assert "Line 4" in lines[2]["error"] and {"in_scope", "score", "threshold", "hits"} <= set(lines[0])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("ask", " "), 2, "empty"),
        (("facts", "add", "Nonsense without sense"), 2, "not understood"),
        (("facts", "add"), 2, "Give a sentence"),
        (("facts", "remove", "99"), 1, "no fact 99"),
        (("facts", "undo"), 1, "nothing to undo"),
        (("facts", "search", "x"), 1, "No fact comes near"),
        (("weights", "off", "9"), 1, "no weight edit 9"),
        (("weights", "apply", EIFFEL, "--method", "rmoe"), 2, "Did you mean 'rome'"),
        (("weights", "apply"), 2, "Name a fact"),
        (("compare",), 2, "Give a sentence"),
        (("facts", "add", EIFFEL, "--if-similar", "maybe"), 2, "ask, keep, replace"),
        (("facts", "list", "--as-of", "yesterday"), 2, "is no date"),
        (("facts", "purge", "1"), 2, "--yes"),
        (("correct", "Where is Georgia?", " "), 2, "empty"),
        (("corrections", "--remove", "9"), 1, "no correction 9"),
        (("corrections", "--remove", "9", "--restore", "9"), 2, "one of the two"),
        (("route",), 2, "Give a question or --file"),
        (("route", "--file", "/nowhere.jsonl"), 2, "cannot be read"),
    ],
)
def test_errors_are_one_line_on_stderr_and_json_on_demand(
    cli: Cli, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = cli(*arguments)
    assert result.exit_code == code and words in result.stderr and "Traceback" not in result.output
    assert result.stdout == ""
    told = cli(*arguments, "--json")
    assert told.exit_code == code and words in json.loads(told.stdout)["error"]


def test_a_correction_is_kept_helps_and_is_taken_back(cli: Cli, cli_json: CliJson) -> None:
    made = cli_json("correct", "Where is Georgia?", "No, I meant the state.", "--ask")
    assert made["correction"]["question"] == "Where is Georgia?" and made["answer"]["strategy"] == "memprompt"
    shown = cli("ask", "Where is Georgia?")
    assert "As you meant it" in shown.stdout and "you said: No, I meant the state." in shown.stderr
    assert "I meant the state" in cli("corrections").stdout
    assert cli_json("corrections", "--remove", "1")["active"] is False
    assert cli_json("ask", "Where is Georgia?")["strategy"] == "none"
    assert cli_json("corrections")["corrections"] == []
    assert len(cli_json("corrections", "--all")["corrections"]) == 1
    assert cli_json("corrections", "--restore", "1")["active"] is True


def test_facts_have_validity_aliases_and_a_purge(cli_json: CliJson) -> None:
    added = cli_json("facts", "add", EIFFEL, "--valid-from", "2020-01-01", "--valid-to", "2021-01-01")
    assert (added["fact"]["valid_from"], added["fact"]["valid_to"]) == ("2020-01-01", "2021-01-01")
    assert "Tour Eiffel" in cli_json("facts", "alias", "Tour Eiffel", "Eiffel Tower")["aliases"]
    assert cli_json("facts", "purge", "1", "--yes")["id"] == 1
    assert cli_json("facts", "list")["total"] == 0


def test_files_and_databases_that_cannot_be_used_are_messages(
    cli: Cli, service: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from sqlalchemy.exc import OperationalError

    (tmp_path / "file").write_text("")
    assert cli("weights", "export", str(tmp_path / "file" / "under")).exit_code == 2

    def broken(**_: Any) -> Any:
        raise OperationalError("SELECT 1", {}, Exception("unable to open database file"))

    monkeypatch.setattr(service.facts, "undo", lambda action=None: broken())
    told = cli("facts", "undo", "--json")
    assert told.exit_code == 2 and "The database cannot be used" in json.loads(told.stdout)["error"]
    assert "Traceback" not in told.output


def test_a_data_folder_that_is_a_file_and_a_port_that_is_taken_are_told(cli: Cli, tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.write_text("not a folder")
    found = cli("facts", "undo", "--data", str(taken))
    assert found.exit_code == 2 and "is a file" in found.stderr
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = cli("chat", "--port", str(server.getsockname()[1]))
    assert found.exit_code == 2 and "another program uses it" in found.stderr and "--port" in found.stderr


def test_import_and_export(cli_json: CliJson, tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_text("subject,relation,object\nEiffel Tower,location,Rome\nbad row\n")
    report = cli_json("facts", "import", str(path))
    assert (report["added"], report["skipped"]) == (1, 1) and report["rows"][1]["why"]
    out = cli_json("facts", "export", str(tmp_path / "out.json"))
    assert out["facts"] == 1 and Path(out["path"]).is_file()


def test_settings_lists_every_setting(cli: Cli, cli_json: CliJson) -> None:
    rows = {row["variable"]: row for row in cli_json("settings")["settings"]}
    assert rows["PALIMPSEST_PORT"]["value"] == "7860" and rows["PALIMPSEST_PORT"]["meaning"]
    assert "| `PALIMPSEST_HOST` | `127.0.0.1` |" in cli("settings", "--markdown").stdout


def test_a_bad_setting_is_named(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_PORT", "0")
    result = cli("ask", "Where is Big Ben?")
    assert result.exit_code == 2 and "PALIMPSEST_PORT='0'" in result.stderr


def test_the_data_flag_before_the_command_counts(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, service: Any
) -> None:
    seen = []

    def make(settings: Any) -> Any:
        seen.append(settings.data)
        return service

    monkeypatch.setattr("app.commands.common.make_service", make)
    monkeypatch.setenv("PALIMPSEST_DATA", "elsewhere")
    cli("--data", str(tmp_path / "here"), "facts", "list")
    cli("facts", "list", "--data", str(tmp_path / "there"))
    assert seen == [tmp_path / "here", tmp_path / "there"]


def test_lists_say_that_something_was_taken_back(cli: Cli, cli_json: CliJson) -> None:
    assert cli("facts", "list").stdout.strip() == "No facts yet."
    cli_json("facts", "add", EIFFEL)
    cli_json("facts", "remove", "1")
    assert "1 taken back or ended (see --all)" in cli("facts", "list").stdout
    assert cli("facts", "list", "--as-of", "2020-01-01").stdout.strip() == "No facts were in force then."
    assert cli("weights", "list").stdout.strip() == "No weight edits yet."
    cli_json("weights", "apply", EIFFEL)
    cli_json("weights", "undo", "1")
    assert "1 undone (see --all)" in cli("weights", "list").stdout


def test_a_written_edit_is_asked_for(cli: Cli) -> None:
    told = cli("weights", "apply", EIFFEL).stdout
    assert "Asked 'Where is the Eiffel Tower?', the model now says 'Rome'." in told
