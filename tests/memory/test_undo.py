"""Undo and redo: a journal that replays to the same facts in whatever order actions are taken back."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memory.errors import NothingToUndo
from memory.lexicon import Lexicon
from memory.store import FactStore
from tests.memory.fakes import HashEmbedder


def objects(store: FactStore) -> list[str]:
    return sorted(fact.object for fact in store.list(limit=None))


def test_undo_of_an_add_brings_the_old_fact_back(store: FactStore) -> None:
    store.add("Atlantis", "capital", "Poseidonis")
    store.add("Atlantis", "capital", "Tritonia")
    assert store.undo().op == "add"
    assert objects(store) == ["Poseidonis"]
    assert store.search("Atlantis")[0].fact.object == "Poseidonis"
    store.undo()
    assert objects(store) == []
    store.redo()
    store.redo()
    assert objects(store) == ["Tritonia"]
    with pytest.raises(NothingToUndo, match="nothing to redo"):
        store.redo()


def test_a_new_action_ends_the_way_forward(store: FactStore) -> None:
    store.add("A", "r", "1")
    store.undo()
    store.add("B", "r", "2")
    with pytest.raises(NothingToUndo):
        store.redo()
    assert objects(store) == ["2"]


def test_any_action_can_be_undone_out_of_order(store: FactStore) -> None:
    first, second, third = (store.add("Atlantis", "capital", name).action for name in ("One", "Two", "Three"))
    store.undo(second)
    assert objects(store) == ["Three"]
    store.undo(third)
    assert objects(store) == ["One"]
    store.redo(second)
    assert objects(store) == ["Two"]
    store.undo(first)
    assert objects(store) == ["Two"]
    store.redo(third)
    assert objects(store) == ["Three"]
    assert [fact.status for fact in store.timeline("Atlantis", "capital")] == ["retired", "superseded", "current"]
    with pytest.raises(NothingToUndo, match="already undone"):
        store.undo(first)
    with pytest.raises(NothingToUndo, match="no action 99"):
        store.undo(99)


def test_undo_of_a_retirement_yields_to_a_newer_fact(store: FactStore) -> None:
    old = store.add("Atlantis", "capital", "Poseidonis").fact
    store.retire(old.id)
    action = store.actions()[0]
    store.add("Atlantis", "capital", "Tritonia")
    store.undo(action.id)
    assert objects(store) == ["Tritonia"]
    assert store.get(old.id).status == "superseded"


def test_undo_of_an_edit_restores_words_and_vector(store: FactStore) -> None:
    fact = store.add("Atlantis", "capital", "Poseidonis").fact
    store.edit(fact.id, object="Zzyzx", source="a map")
    assert store.search("The capital of Atlantis is Zzyzx.", k=1)[0].score > 0.99
    store.undo()
    back = store.get(fact.id)
    assert (back.object, back.source) == ("Poseidonis", "user")
    assert store.search(back.statement, k=1)[0].score > 0.99


def test_the_history_of_a_fact_is_complete(store: FactStore) -> None:
    fact = store.add("Atlantis", "capital", "Poseidonis", actor="ann").fact
    store.edit(fact.id, object="Tritonia", actor="bo")
    store.retire(fact.id, actor="cy")
    store.undo(actor="dee")
    entries = store.history(fact.id)
    assert [entry.op for entry in entries] == ["add", "edit", "retire", "undo"]
    assert [entry.actor for entry in entries] == ["ann", "bo", "cy", "dee"]
    assert entries[1].changes["object"] == ("Poseidonis", "Tritonia")
    assert [entry.undone for entry in entries] == [False, False, True, False]
    assert entries[0].to_json()["changes"]["statement"] == [None, "The capital of Atlantis is Poseidonis."]


def test_actions_are_listed_newest_first(store: FactStore) -> None:
    store.add("A", "r", "1")
    store.add("A", "r", "2")
    store.undo()
    ops = [(action.op, action.undone, len(action.fact_ids)) for action in store.actions()]
    assert ops == [("add", True, 2), ("add", False, 1)]


class Machine(RuleBasedStateMachine):
    """Random actions, undone and redone at random, against the definition: replay what is not undone."""

    def __init__(self) -> None:
        super().__init__()
        self.store = FactStore("sqlite://", HashEmbedder(), lexicon=Lexicon({}, {}))
        self.done: list[tuple[int, str, tuple[str, ...]]] = []  # action id, kind, arguments
        self.undone: set[int] = set()

    @rule(subject=st.sampled_from("AB"), obj=st.sampled_from("xyz"))
    def add(self, subject: str, obj: str) -> None:
        result = self.store.add(subject, "r", obj)
        if not result.duplicate:
            assert result.action is not None
            self.done.append((result.action, "add", (subject, obj, str(result.fact.id))))

    @precondition(lambda self: self.store.count() > 0)
    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        fact = data.draw(st.sampled_from(list(self.store.list())))
        self.store.retire(fact.id)
        self.done.append((self.store.actions(limit=1)[0].id, "retire", (str(fact.id),)))

    @precondition(lambda self: self.done)
    @rule(data=st.data())
    def turn(self, data: st.DataObject) -> None:
        action = data.draw(st.sampled_from([entry[0] for entry in self.done]))
        if action in self.undone:
            self.store.redo(action)
            self.undone.discard(action)
        else:
            self.store.undo(action)
            self.undone.add(action)

    @rule()
    def reopen_index(self) -> None:
        self.store.sync.rebuild()

    @invariant()
    def facts_are_the_replay_of_what_is_not_undone(self) -> None:
        current: dict[str, tuple[str, str]] = {}  # subject -> (fact id, object)
        for action, kind, arguments in sorted(self.done):
            if action in self.undone:
                continue
            if kind == "add":
                current[arguments[0]] = (arguments[2], arguments[1])
            else:
                current = {subject: held for subject, held in current.items() if held[0] != arguments[0]}
        expected = sorted(subject + held[1] for subject, held in current.items())
        assert sorted(fact.subject + fact.object for fact in self.store.list(limit=None)) == expected

    @invariant()
    def index_is_level(self) -> None:
        assert self.store.sync.mismatch() == set()

    def teardown(self) -> None:
        self.store.close()


Machine.TestCase.settings = settings(max_examples=15, stateful_step_count=18, deadline=None)
TestUndoRedo = Machine.TestCase
