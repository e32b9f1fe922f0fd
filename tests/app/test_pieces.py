"""Settings, chats, files, escaping and rendering, each by itself."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.conversations import Conversations, Turn, UnknownChat
from app.fact_files import read_rows, write_rows
from app.settings import SettingsError, load_settings
from app.ui import compare_html, facts_html, transcript
from app.ui.evidence import evidence_html, evidence_markdown, title_of
from app.ui.page import Runs, status_html
from app.ui.render import literal, safe_markdown
from app.ui.weights import ledger_html
from app.views import FactPage, FactView, Status
from knowledge.errors import InvalidInput
from tests.app import fakes
from tests.app.fakes import FakeService

HOSTILE = "<img src=x onerror=alert(1)>\"'`"
ANSWER: Any = {
    "answer": "Rome",
    "source": "memory",
    "strategy": "ike",
    "hits": [{"fact_id": 1, "text": HOSTILE, "score": 0.9}],
    "gate": {"in_scope": True, "score": 0.9, "threshold": 0.6},
    "steps": [{"subquestion": HOSTILE, "answer": "Rome"}],
    "weight_edits": [{"id": 1, "method": "rome", "facts": [HOSTILE]}],
    "seconds": 0.2,
}


def test_flags_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALIMPSEST_PORT", "8000")
    monkeypatch.setenv("PALIMPSEST_DEVICE", "")
    assert load_settings().port == 8000 and load_settings(port=9000).port == 9000
    assert load_settings().device is None and load_settings(data="~/x").data == Path.home() / "x"
    with pytest.raises(SettingsError, match="PALIMPSEST_MODE='wild'"):
        load_settings(mode="wild")


def test_chats_are_kept_and_belong_to_one_browser(tmp_path: Path) -> None:
    chats = Conversations(tmp_path / "chats.sqlite")
    mine, other, chat = chats.new_owner(), chats.new_owner(), chats.new_id()
    assert chats.turns(mine, chat) == [] and chats.titles(mine) == []
    chats.append(mine, chat, Turn("Where is the Eiffel Tower?"))
    chats.update_last(mine, chat, answer="Paris", evidence=ANSWER)
    chats.append(mine, chat, Turn("And Big Ben?", "London"))
    again = Conversations(tmp_path / "chats.sqlite")
    assert [turn.answer for turn in again.turns(mine, chat)] == ["Paris", "London"]
    assert again.turns(mine, chat)[0].evidence == ANSWER
    assert again.titles(mine)[0].title == "Where is the Eiffel Tower?" and again.titles(other) == []
    for forbidden in (
        again.turns,
        again.delete,
        lambda owner, chat: again.append(owner, chat, Turn("x")),
        lambda owner, chat: again.cut(owner, chat, 0),
    ):
        with pytest.raises(UnknownChat):
            forbidden(other, chat)
    assert again.cut(mine, chat, 1) == "And Big Ben?" and len(again.turns(mine, chat)) == 1
    again.delete(mine, chat)
    assert again.titles(mine) == [] and again.turns(mine, chat) == []
    assert (tmp_path / "chats.sqlite").stat().st_mode & 0o077 == 0


def test_the_transcript_maps_messages_back_to_turns() -> None:
    turns = [Turn("a", "b", evidence=ANSWER), Turn("c", "d|e", unedited="x\ny"), Turn("f")]
    messages = transcript.messages_of(turns)
    assert [message["role"] for message in messages] == ["user", "assistant", "assistant", "user", "assistant", "user"]
    assert [transcript.turn_at(turns, index) for index in range(7)] == [0, 0, 0, 1, 1, 2, None]
    assert "d\\|e" in messages[4]["content"] and "x<br>y" in messages[4]["content"]
    assert transcript.history_of(turns, 5) == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d|e"},
    ]
    assert transcript.history_of(turns, 0) == []
    assert transcript.plain_text([{"type": "text", "text": "a &lt; b"}]) == "a < b"


def test_failed_turns_say_why_and_stay_out_of_the_history() -> None:
    turns = [Turn("a", "", evidence={"error": HOSTILE}), Turn("b", "par", stopped=True)]
    shown = transcript.messages_of(turns)
    assert "&lt;img" in shown[1]["content"] and "stopped" in shown[3]["content"]
    assert transcript.history_of(turns, 5) == []


def test_hostile_text_is_escaped_everywhere(tmp_path: Path) -> None:
    service = FakeService(tmp_path)
    outcome = service.facts.add(subject=HOSTILE, relation=HOSTILE, object=HOSTILE, source=HOSTILE)
    fact = replace(outcome.fact, reason=HOSTILE, question=HOSTILE)
    preview = replace(service.facts.preview_triple("s", HOSTILE, "o"), conflict=fact)
    entry = service.weights.apply("rome", fact_ids=[fact.id])
    found = service.comparing.run([fact.id], ["base", "ike"])
    found = replace(found, rows=tuple(replace(row, title=HOSTILE) for row in found.rows))
    pages = [
        evidence_html(ANSWER),
        evidence_markdown(ANSWER),
        facts_html.page_html(FactPage((fact,), 1, 1, 1), HOSTILE),
        facts_html.page_html(FactPage((), 0, 1, 1), HOSTILE),
        facts_html.detail_html(fact, service.facts.history(fact.id)),
        facts_html.preview_html(preview, HOSTILE),
        facts_html.conflict_html(preview),
        facts_html.overwritten_html(fact, fact),
        ledger_html([entry]),
        compare_html.table_html(found),
        compare_html.probes_html(found),
        status_html(Status(HOSTILE, "failed", 0, 0, HOSTILE)),
        safe_markdown(HOSTILE),
    ]
    for page in pages:
        assert "<img" not in page and "<b>?" not in page, page


def test_markdown_keeps_code_as_it_is() -> None:
    assert safe_markdown("a < b `x < y` & c") == "a &lt; b `x < y` &amp; c"
    assert safe_markdown("```\n<b>\n") == "```\n<b>\n"


def test_literal_text_has_no_links_and_no_markup() -> None:
    assert literal("[x](http://a) *b* <i>\n# c") == "\\[x\\]\\(http://a\\) \\*b\\* &lt;i&gt; \\# c"


def test_evidence_says_what_was_not_asked() -> None:
    quiet = {**ANSWER, "source": "model", "strategy": "model", "hits": [], "steps": [], "weight_edits": []}
    assert "not asked" in evidence_html({**quiet, "gate": {"in_scope": False, "score": 0.0, "threshold": 1.0}})
    assert title_of(quiet) == "Evidence: from the model · 200 ms"
    assert "Why this answer" in evidence_html(None)


def test_csv_of_a_comparison_holds_no_formulas(service: FakeService) -> None:
    found = service.comparing.run(["The Eiffel Tower is located in Rome."], ["base", "ike"])
    found = replace(found, probes=(replace(found.probes[0], prompt="=1+1"),))
    text = compare_html.csv_text(found)
    assert "'=1+1" in text and text.startswith("method,metric,value")
    assert "No probe fits" in compare_html.probes_html(found, missed="ike")
    assert "Paris" in compare_html.probes_html(found, missed="base")


def test_files_round_trip_and_bad_rows_are_reported(tmp_path: Path) -> None:
    facts = [{"subject": "a, b", "relation": "r", "object": 'c "d"', "statement": "s"}]
    for kind in ("csv", "json", "jsonl"):
        path = tmp_path / f"facts.{kind}"
        write_rows(path, facts)
        ((_, row),) = list(read_rows(path))
        assert isinstance(row, dict) and (row["subject"], row["object"]) == ("a, b", 'c "d"')
    path = tmp_path / "bad.csv"
    path.write_text("subject;relation;object\na;b;c\nonly two;cells\n\nd;e;f\n")
    rows = list(read_rows(path))
    assert [line for line, _ in rows] == [2, 3, 5] and isinstance(rows[1][1], InvalidInput)
    path = tmp_path / "bad.jsonl"
    path.write_text('"A sentence."\n["a", "b", "c"]\n{"fact": "x"}\n[1]\n{oops\n')
    kinds = [type(row).__name__ for _, row in read_rows(path)]
    assert kinds == ["dict", "dict", "dict", "InvalidInput", "InvalidInput"]
    for name, text in (("x.txt", ""), ("x.csv", "foo,bar\n1,2\n"), ("x.json", "5"), ("y.json", "{")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InvalidInput):
            list(read_rows(tmp_path / name))
    with pytest.raises(InvalidInput):
        write_rows(tmp_path / "x.txt", facts)
    assert not list(tmp_path.glob(".*"))


def test_starting_a_run_cancels_the_one_before() -> None:
    runs = Runs()
    first, second = runs.start("chat"), runs.start("chat")
    assert first.is_set() and not second.is_set()
    runs.end("chat", first)
    assert runs.current("chat") is second and runs.stop("chat") and second.is_set()
    runs.end("chat", second)
    assert not runs.stop("chat")


@pytest.mark.parametrize(
    ("real", "fake"),
    [
        ("app.service:Service", fakes.FakeService),
        ("app.fact_desk:FactDesk", fakes.FakeFacts),
        ("app.weight_desk:WeightDesk", fakes.FakeWeights),
        ("app.compare_desk:CompareDesk", fakes.FakeComparing),
    ],
)
def test_the_fake_has_the_methods_of_the_real_one(real: str, fake: type) -> None:
    module, _, name = real.partition(":")
    cls = getattr(__import__(module, fromlist=[name]), name)
    for method, function in inspect.getmembers(cls, inspect.isfunction):
        if method.startswith("_") or method == "edit_of" or method == "edits":
            continue
        assert hasattr(fake, method), method
        wanted = list(inspect.signature(function).parameters)
        assert list(inspect.signature(getattr(fake, method)).parameters) == wanted, method


def test_commands_import_neither_torch_nor_gradio() -> None:
    names = "('torch', 'gradio', 'transformers', 'faiss')"
    code = f"import json, sys, app.cli; print(json.dumps([m for m in {names} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_fact_views_know_whether_they_count() -> None:
    fact = FactView(1, "s", "a", "b", "c", "current")
    assert fact.current and not replace(fact, status="superseded").current
