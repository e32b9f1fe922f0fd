from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

from knowledge.errors import InvalidInput
from memory.errors import FactNotFound, StoreError
from memory.lexicon import Lexicon
from memory.store import FactStore, NearDuplicate
from tests.memory.conftest import SERVER, MakeStore
from tests.memory.fakes import HashEmbedder


def statements(store: FactStore, **options: object) -> list[str]:
    return [fact.statement for fact in store.list(**options)]  # type: ignore[arg-type]


def test_a_fact_is_worded_from_its_parts(store: FactStore) -> None:
    fact = store.add("Atlantis", "capital", "Poseidonis").fact
    assert fact.statement == "The capital of Atlantis is Poseidonis."
    assert fact.question == "What is the capital of Atlantis?"
    assert (fact.status, fact.cardinality, fact.source, fact.actor) == ("current", "functional", "user", "user")
    assert store.get(fact.id) == fact


def test_a_known_relation_is_worded_in_its_own_words(make_store: MakeStore) -> None:
    store = make_store(lexicon=Lexicon.bundled())
    by_id = store.add("Eiffel Tower", "located_in", "Rome").fact
    assert by_id.relation == "located_in"
    assert "Eiffel Tower" in by_id.statement
    assert by_id.statement.endswith("Rome.")
    assert store.add("France", "capital", "Lyon").fact.question.endswith("?")  # type: ignore[union-attr]


def test_a_sentence_alone_gives_the_prompt(store: FactStore) -> None:
    fact = store.add("Eiffel Tower", None, "Rome", statement="The Eiffel Tower stands in Rome.").fact
    assert fact.prompt == "The {} stands in"
    assert fact.statement == "The Eiffel Tower stands in Rome."
    assert store.to_edit(fact).statement == "The Eiffel Tower stands in Rome."


def test_a_new_object_supersedes_and_the_history_stays(store: FactStore) -> None:
    first = store.add("Atlantis", "capital", "Poseidonis")
    second = store.add("atlantis", "Capital", "Tritonia")
    assert second.superseded is not None
    assert second.superseded.id == first.fact.id
    assert second.fact.supersedes_id == first.fact.id
    assert statements(store) == ["The Capital of atlantis is Tritonia."]
    old = store.get(first.fact.id)
    assert old.status == "superseded"
    assert old.valid_to == second.fact.valid_from
    assert [fact.object for fact in store.timeline("Atlantis", "capital")] == ["Poseidonis", "Tritonia"]


def test_the_very_same_fact_is_not_written_twice(store: FactStore) -> None:
    first = store.add("Atlantis", "capital", "Poseidonis")
    again = store.add("ATLANTIS", "capital", "poseidonis.")
    assert again.duplicate
    assert again.fact.id == first.fact.id
    assert store.count(status=None) == 1


def test_multi_valued_relations_hold_several_objects(store: FactStore) -> None:
    for name in ("Ann", "Bo"):
        assert store.add("Acme", "founder", name, cardinality="multi").superseded is None
    assert store.count() == 2
    assert store.add("Acme", "founder", "Bo", cardinality="multi").duplicate


def test_an_alias_leads_to_the_same_subject(store: FactStore) -> None:
    store.add("United States", "capital", "Boston")
    by_world = store.add("USA", "capital", "Austin")
    assert by_world.superseded is not None
    store.add_alias("Uncle Sam's country", "United States")
    by_user = store.add("Uncle Sam's country", "capital", "Miami")
    assert by_user.superseded is not None
    assert by_user.superseded.object == "Austin"
    assert "Uncle Sam's country" in store.aliases("USA")
    assert store.about(["uncle sam's country"], ("default",))[0].object == "Miami"


def test_facts_that_hold_only_later_take_no_place_among_the_nearest(store: FactStore) -> None:
    soon = datetime.now(UTC) + timedelta(days=1)
    for number in range(6):
        store.add("Atlantis", "mayor", f"Ann {number}", prompt="{} has the mayor", valid_from=soon, cardinality="multi")
    store.add("Lemuria", "anthem", "Waves")
    assert [hit.fact.object for hit in store.search("Atlantis has the mayor Ann", k=2)] == ["Waves"]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("", "capital", "Rome"), "subject of the fact is empty"),
        (("Rome", "capital", " . "), "object of the fact is empty"),
        (("x" * 301, "capital", "Rome"), "301 characters"),
        (("Italy", None, "Rome"), "Nothing says how"),
    ],
)
def test_a_useless_fact_is_refused_in_words(store: FactStore, parts: tuple[str, str, str], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        store.add(*parts)
    assert store.count(status=None) == 0


def test_line_breaks_and_odd_marks_are_flattened(store: FactStore) -> None:
    fact = store.add("Big\nBen", "city", "Ro\u00a0me\n\nQuestion: who?").fact
    assert "\n" not in fact.statement
    assert fact.subject == "Big Ben"


def test_retire_takes_out_of_force(store: FactStore) -> None:
    fact = store.add("Atlantis", "capital", "Poseidonis").fact
    retired = store.retire(fact.id, reason="sunk")
    assert (retired.status, retired.reason) == ("retired", "sunk")
    assert store.search("capital of Atlantis") == []
    assert store.count() == 0
    with pytest.raises(StoreError, match="already retired"):
        store.retire(fact.id)
    with pytest.raises(FactNotFound):
        store.retire(99)


def test_edit_changes_wording_vector_and_keys(store: FactStore) -> None:
    fact = store.add("Atlantis", "capital", "Poseidonis").fact
    edited = store.edit(fact.id, object="Tritonia")
    assert edited.id == fact.id
    assert edited.statement == "The capital of Atlantis is Tritonia."
    assert store.search("Tritonia", k=1)[0].fact.id == fact.id
    assert store.edit(fact.id, relation="currency").statement == "The currency of Atlantis is Tritonia."
    with pytest.raises(InvalidInput, match="no field 'colour'"):
        store.edit(fact.id, colour="red")


def test_an_edit_into_anothers_place_supersedes_it(store: FactStore) -> None:
    rome = store.add("Italy", "capital", "Rome").fact
    other = store.add("Spain", "capital", "Madrid").fact
    store.edit(other.id, subject="Italy")
    assert store.get(rome.id).status == "superseded"
    assert statements(store) == ["The capital of Italy is Madrid."]
    store.undo()
    assert sorted(statements(store)) == ["The capital of Italy is Rome.", "The capital of Spain is Madrid."]


@pytest.mark.skipif(bool(SERVER), reason="reads the SQLite file")
def test_purge_leaves_nothing_to_read(store: FactStore, make_store: MakeStore) -> None:
    secret = store.add("Agent", "name", "Zaphodzebra").fact
    kept = store.add("Atlantis", "capital", "Poseidonis").fact
    store.save_index()
    with pytest.raises(StoreError, match="Confirm it"):
        store.purge([secret.id], confirm=False)
    assert store.purge([secret.id], confirm=True) == 1
    assert [fact.id for fact in store.list(status=None)] == [kept.id]
    assert store.sync.mismatch() == set()
    store.close()
    folder = store.database.path.parent  # type: ignore[union-attr]
    for path in folder.rglob("*"):
        if path.is_file():
            assert b"Zaphodzebra" not in path.read_bytes(), path
    assert make_store().add("X", "y", "z").fact.id > secret.id  # its number is never given again


def test_as_of_shows_what_was_in_force(store: FactStore) -> None:
    day = datetime(2020, 1, 1, tzinfo=UTC)
    store.add("Atlantis", "mayor", "Ann", valid_from=day)
    store.add("Atlantis", "mayor", "Bo", valid_from=day + timedelta(days=365))
    store.add("Atlantis", "mayor", "Zed", valid_from=day - timedelta(days=900), valid_to=day)
    for offset, expected in ((-1, ["Zed"]), (10, ["Ann"]), (400, ["Bo"]), (-2000, [])):
        assert [fact.object for fact in store.list(as_of=day + timedelta(days=offset))] == expected
    assert [fact.object for fact in store.list()] == ["Bo"]
    now = datetime.now(UTC)
    store.retire(store.list()[0].id)
    assert [fact.object for fact in store.list(as_of=now)] == ["Bo"]
    assert store.count(as_of=datetime.now(UTC)) == 0


def test_a_fact_is_not_used_outside_its_validity(store: FactStore) -> None:
    later = datetime.now(UTC) + timedelta(days=30)
    store.add("Atlantis", "mayor", "Ann")
    store.add("Atlantis", "mayor", "Bo", valid_from=later)
    assert [hit.fact.object for hit in store.search("mayor of Atlantis")] == ["Ann"]
    with pytest.raises(InvalidInput, match="ends before it begins"):
        store.add("Atlantis", "mayor", "Cy", valid_from=later, valid_to=later - timedelta(days=1))


def test_near_duplicates_are_asked_about(store: FactStore) -> None:
    first = store.add("Eiffel Tower", "place", "Rome", statement="The Eiffel Tower is located in Rome.").fact
    again = {"statement": "The Eiffel Tower is located in Rome.", "prompt": "The {} is located in"}
    assert store.add("Eiffel Tower", "location", "Rome", **again).similar[0].fact.id == first.id  # type: ignore[arg-type]
    store.undo()
    with pytest.raises(NearDuplicate, match="Keep both, replace"):
        store.add("Eiffel Tower", "location", "Rome", if_similar="ask", **again)  # type: ignore[arg-type]
    assert store.count() == 1
    store.add("Eiffel Tower", "location", "Rome", if_similar="replace", **again)  # type: ignore[arg-type]
    assert store.get(first.id).status == "retired"
    store.undo()
    assert store.get(first.id).status == "current"


def test_lists_are_filtered_and_paged(store: FactStore) -> None:
    for number in range(25):
        store.add(f"Thing {number}", "colour", "100% red" if number % 2 else "blue_ish")
    assert store.count() == 25
    assert [fact.subject for fact in store.list(limit=2, offset=1)] == ["Thing 23", "Thing 22"]
    assert store.count(contains="100%") == 12
    assert store.count(contains="E_ISH") == 13
    assert store.list(subject="thing 7")[0].object == "100% red"
    assert store.list(limit=1, newest_first=False)[0].subject == "Thing 0"


def test_namespaces_do_not_leak(store: FactStore) -> None:
    store.add("Atlantis", "capital", "Poseidonis", namespace="ann")
    store.add("Atlantis", "capital", "Tritonia", namespace="bo")
    store.add("Atlantis", "currency", "drachma", namespace="shared")
    found = {hit.fact.object for hit in store.search("capital of Atlantis", namespace="ann")}
    assert found == {"Poseidonis", "drachma"}
    assert {fact.object for fact in store.about(["atlantis"], ("bo",))} == {"Tritonia"}
    assert store.search("capital of Atlantis") != []  # the shared fact only
    assert {hit.fact.namespace for hit in store.search("capital of Atlantis")} == {"shared"}
    with pytest.raises(FactNotFound):
        store.get(1, namespace="bo")
    with pytest.raises(StoreError, match="nothing to undo"):
        store.undo(namespace="cy")
    store.undo(namespace="bo")
    assert store.namespaces() == {"ann": 1, "shared": 1}


def test_what_an_edit_says(make_store: MakeStore) -> None:
    store = make_store(lexicon=Lexicon.bundled())
    fact = store.add("Eiffel Tower", "located_in", "New York City", object_aliases=["Gotham"], target_true="Paris").fact
    edit = store.to_edit(fact)
    assert (edit.subject, edit.target_new, edit.target_true) == ("Eiffel Tower", "New York City", "Paris")
    assert "Gotham" in edit.aliases
    assert edit.prompt.count("{}") == 1


def test_a_missing_database_driver_is_named_with_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pg8000", None)
    with pytest.raises(StoreError, match=r"pg8000.*Install"):
        FactStore("postgresql+pg8000://user@127.0.0.1/facts", HashEmbedder())


@pytest.mark.skipif(bool(SERVER), reason="reads SQLite's query plans")
def test_adding_and_undoing_read_no_whole_table(store: FactStore) -> None:
    asked: list[tuple[str, object]] = []

    def note(_connection: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        if statement.startswith("SELECT"):
            asked.append((statement, values))

    for number in range(30):
        store.add(f"Land {number}", "capital", f"Town {number}")
    event.listen(store.engine, "before_cursor_execute", note)
    store.add("Land 3", "capital", "Elsewhere")
    store.undo()
    store.redo()
    event.remove(store.engine, "before_cursor_execute", note)
    plans = []
    with store.database.read() as connection:
        for statement, values in asked:
            rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)  # type: ignore[arg-type]
            plans += [str(row[3]) for row in rows]
    assert plans
    # over (namespace, status) every current fact would be read, and without an index every event
    assert not [plan for plan in plans if "ix_fact_status" in plan or plan.split()[:2] == ["SCAN", "fact"]]
    assert any("ix_event_inverts" in plan for plan in plans)


@pytest.mark.skipif(bool(SERVER), reason="takes an index out of an SQLite file")
def test_a_database_of_an_earlier_version_gets_the_later_index(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'facts.db'}"
    with FactStore(url, HashEmbedder()) as store, store.database.write() as connection:
        connection.exec_driver_sql("DROP INDEX ix_event_inverts")
    with FactStore(url, HashEmbedder()) as store, store.database.read() as connection:
        assert connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE name = 'ix_event_inverts'").all()
