"""Chats, kept on the server: one SQLite file, each chat owned by one browser.

    chats = Conversations(Path("data/chats.sqlite"))
    chat = chats.new(owner)
    chats.append(owner, chat, Turn("Where is the Eiffel Tower?", "Paris"))

The owner is a random secret that a browser keeps; every read and write names it, so one browser never sees another's
chats. The chats lie apart from the facts, because facts are shared and exported and chats are not.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from knowledge.errors import PalimpsestError

MAX_TURNS = 500  # per chat; the oldest go first
MAX_CHATS = 200  # per browser; the least recently used go first

_SCHEMA = """
CREATE TABLE IF NOT EXISTS chat (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, title TEXT NOT NULL, updated_at REAL NOT NULL);
CREATE INDEX IF NOT EXISTS chat_owner ON chat (owner, updated_at);
CREATE TABLE IF NOT EXISTS turn (
    chat_id TEXT NOT NULL REFERENCES chat (id) ON DELETE CASCADE, position INTEGER NOT NULL,
    question TEXT NOT NULL, answer TEXT, unedited TEXT, evidence TEXT, stopped INTEGER NOT NULL DEFAULT 0,
    about TEXT,
    PRIMARY KEY (chat_id, position));
"""


class UnknownChat(PalimpsestError):
    """No such chat for this browser."""


@dataclass(frozen=True)
class Turn:
    """One question with what came back. ``answer`` is None while it is being written."""

    question: str
    answer: str | None = None
    unedited: str | None = None  # the unedited model's answer, where a comparison was asked for
    evidence: dict[str, Any] | None = None  # the answer's JSON
    stopped: bool = False
    about: str | None = None  # the message corrects the answer to this earlier question


@dataclass(frozen=True)
class ChatTitle:
    id: str
    title: str
    updated_at: float


class Conversations:
    """All chats of all browsers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as db:
            db.executescript(_SCHEMA)
            if "about" not in {row[1] for row in db.execute("PRAGMA table_info(turn)")}:  # chats of earlier versions
                db.execute("ALTER TABLE turn ADD COLUMN about TEXT")
        path.chmod(0o600)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            db = sqlite3.connect(self.path, timeout=10, isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA foreign_keys=ON")
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT") if db.in_transaction else None
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            finally:
                db.close()

    @staticmethod
    def new_owner() -> str:
        """A fresh secret for a browser that has none."""
        return secrets.token_urlsafe(24)

    @staticmethod
    def new_id() -> str:
        """The id of a chat to come; nothing is stored until its first turn."""
        return secrets.token_urlsafe(12)

    def titles(self, owner: str) -> list[ChatTitle]:
        """This browser's chats, last used first."""
        with self._open() as db:
            rows = db.execute(
                "SELECT id, title, updated_at FROM chat WHERE owner = ? ORDER BY updated_at DESC", (owner,)
            ).fetchall()
        return [ChatTitle(*row) for row in rows]

    def turns(self, owner: str, chat: str) -> list[Turn]:
        """The turns of a chat, oldest first; empty for a chat that has none yet.

        Raises:
            UnknownChat: the chat belongs to another browser.
        """
        with self._open() as db:
            self._check(db, owner, chat)
            rows = db.execute(
                "SELECT question, answer, unedited, evidence, stopped, about FROM turn WHERE chat_id = ? "
                "ORDER BY position",
                (chat,),
            ).fetchall()
        return [Turn(q, a, u, json.loads(e) if e else None, bool(s), about) for q, a, u, e, s, about in rows]

    def append(self, owner: str, chat: str, turn: Turn) -> int:
        """Adds a turn; makes the chat, titled by its first question, where there is none. Gives the position."""
        with self._open() as db:
            if not self._check(db, owner, chat):
                title = turn.question if len(turn.question) <= 60 else turn.question[:57].rstrip() + "..."
                db.execute("INSERT INTO chat VALUES (?, ?, ?, ?)", (chat, owner, title, time.time()))
                self._prune_chats(db, owner)
            last = db.execute("SELECT max(position) FROM turn WHERE chat_id = ?", (chat,)).fetchone()[0]
            position = 0 if last is None else int(last) + 1
            self._write(db, chat, position, turn)
            db.execute("DELETE FROM turn WHERE chat_id = ? AND position <= ?", (chat, position - MAX_TURNS))
        return position

    def update_last(self, owner: str, chat: str, **changes: Any) -> None:
        """Changes fields of the last turn (``answer``, ``unedited``, ``evidence``, ``stopped``, ``about``)."""
        turns = self.turns(owner, chat)
        if not turns:
            return
        with self._open() as db:
            position = db.execute("SELECT max(position) FROM turn WHERE chat_id = ?", (chat,)).fetchone()[0]
            self._write(db, chat, int(position), replace(turns[-1], **changes))

    def cut(self, owner: str, chat: str, keep: int) -> str | None:
        """Keeps the first ``keep`` turns and gives the question of the first one dropped (None where none was)."""
        with self._open() as db:
            self._check(db, owner, chat)
            rows = db.execute(
                "SELECT position, question FROM turn WHERE chat_id = ? ORDER BY position", (chat,)
            ).fetchall()[max(keep, 0) :]
            if not rows:
                return None
            db.execute("DELETE FROM turn WHERE chat_id = ? AND position >= ?", (chat, rows[0][0]))
        return str(rows[0][1])

    def delete(self, owner: str, chat: str) -> None:
        """Removes a chat with all of its turns."""
        with self._open() as db:
            if self._check(db, owner, chat):
                db.execute("DELETE FROM chat WHERE id = ?", (chat,))

    def _check(self, db: sqlite3.Connection, owner: str, chat: str) -> bool:
        """Whether the chat exists; raises when it is somebody else's."""
        row = db.execute("SELECT owner FROM chat WHERE id = ?", (chat,)).fetchone()
        if row is not None and not secrets.compare_digest(str(row[0]).encode(), owner.encode()):
            raise UnknownChat("This chat does not exist in this browser. Start a new one.")
        return row is not None

    @staticmethod
    def _write(db: sqlite3.Connection, chat: str, position: int, turn: Turn) -> None:
        evidence = json.dumps(turn.evidence) if turn.evidence is not None else None
        db.execute(
            "INSERT OR REPLACE INTO turn (chat_id, position, question, answer, unedited, evidence, stopped, about) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (chat, position, turn.question, turn.answer, turn.unedited, evidence, int(turn.stopped), turn.about),
        )
        db.execute("UPDATE chat SET updated_at = ? WHERE id = ?", (time.time(), chat))

    @staticmethod
    def _prune_chats(db: sqlite3.Connection, owner: str) -> None:
        db.execute(
            "DELETE FROM chat WHERE owner = ? AND id NOT IN "
            "(SELECT id FROM chat WHERE owner = ? ORDER BY updated_at DESC LIMIT ?)",
            (owner, owner, MAX_CHATS),
        )
