"""The chat: streaming, stop, retry, undo, edit, clear, earlier chats, and the comparison with the unedited model.

The server holds the truth. Every handler reads the conversation from the store by (owner, chat), changes it there and
shows it anew, so a reload, a second tab or a restart of the server loses nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from app.conversations import Turn
from app.errors import TooLarge
from app.ui.evidence import EMPTY, evidence_html
from app.ui.page import MODEL_SLOT, Page
from app.ui.render import guarded
from app.ui.transcript import history_of, messages_of, plain_text, turn_at
from knowledge.errors import PalimpsestError

log = logging.getLogger(__name__)

EXAMPLES = ("Where is the Eiffel Tower?", "What is the capital of France?", "Who wrote Hamlet?")
PLACEHOLDER = """<div class="empty"><p class="empty-title">A model whose facts can be written over</p>
<p>Ask it something. Then correct a fact under <b>Facts</b> and ask again: the answer changes,
and what you did not touch stays as it was.</p></div>"""
MODES = [
    ("auto", "auto"),
    ("memory only", "memory"),
    ("weights only", "weights"),
    ("both", "both"),
    ("unedited", "base"),
]
WHO = """async ({first}owner, chat) => {{
  while (!window.palimpsest) await new Promise((done) => setTimeout(done, 50));
  return [{values}window.palimpsest.owner, window.palimpsest.chat];
}}"""  # a question typed before the page knows its browser and chat waits until it does
FRAME = 0.04  # seconds between two updates of the page while an answer streams


@dataclass
class ChatTab:
    """The chat column; :meth:`build` lays it out, :meth:`wire` connects it."""

    page: Page

    def build(self) -> None:
        settings = self.page.service.settings
        with gr.Row(elem_classes="chat-bar", equal_height=True):
            self.earlier = gr.Dropdown(
                [], label="Earlier chats", show_label=False, container=False, scale=5, min_width=120,
                elem_id="earlier", filterable=False,
            )  # fmt: skip
            self.new = gr.Button("New chat", size="sm", scale=0, min_width=88, elem_id="new-chat")
            self.delete = gr.Button("Delete", size="sm", scale=0, min_width=72, elem_id="delete-chat")
        self.box = gr.Chatbot(
            elem_id="chat", show_label=False, height="calc(100dvh - 246px)", min_height=320, placeholder=PLACEHOLDER,
            examples=[{"text": text} for text in EXAMPLES], buttons=["copy", "copy_all"], editable="user",
            latex_delimiters=[], layout="bubble", allow_tags=False, feedback_options=None, autoscroll=True,
            allow_file_downloads=False,
        )  # fmt: skip
        with gr.Row(elem_classes="ask-row", equal_height=True):
            self.text = gr.Textbox(
                show_label=False, container=False, placeholder="Ask something", lines=1, max_lines=6, scale=8,
                max_length=settings.max_message, elem_id="ask", autofocus=True, label="Message", min_width=160,
            )  # fmt: skip
            self.send = gr.Button("Send", variant="primary", scale=0, min_width=92, elem_id="send")
            self.stop = gr.Button("Stop", variant="stop", scale=0, min_width=92, visible=False, elem_id="stop")
        strategies = [("auto", "auto")] + [(item.title, item.name) for item in self.page.service.strategies()]
        names = [name for _, name in strategies]
        with gr.Row(elem_classes="mode-row", equal_height=True):
            self.mode = gr.Dropdown(
                MODES,
                value=settings.mode,
                label="Answer from",
                scale=2,
                min_width=130,
                elem_id="mode",
                filterable=False,
            )
            self.strategy = gr.Dropdown(
                strategies, value=settings.strategy if settings.strategy in names else "auto", label="Memory strategy",
                scale=2, min_width=130, elem_id="strategy", filterable=False,
            )  # fmt: skip
            self.both = gr.Checkbox(
                False, label="Compare with the unedited model", scale=3, min_width=190, elem_id="both", container=False
            )

    def wire(self, evidence: gr.HTML) -> None:
        page = self.page
        who = [page.owner, page.chat]
        pickers = [self.mode, self.strategy, self.both]
        shown = [self.box, self.send, self.stop]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

        def answer_after(begun: Any) -> Any:
            return begun.success(
                guarded(self._answer), [*who, *pickers], [*shown, evidence],
                concurrency_id=MODEL_SLOT, concurrency_limit=1, **quiet,
            ).then(lambda owner, chat: (self._titles(owner, chat), page.header_html()), who,
                   [self.earlier, page.header], **quiet)  # fmt: skip

        for trigger in (self.text.submit, self.send.click):
            begun = trigger(
                guarded(self._begin), [self.text, *who], [self.text, *shown], queue=False,
                js=WHO.format(first="text, ", values="text, "), **quiet,
            )  # fmt: skip
            answer_after(begun)
        answer_after(
            self.box.example_select(
                guarded(self._example),
                who,
                [self.text, *shown],
                queue=False,
                js=WHO.format(first="", values=""),
                **quiet,
            )
        )
        answer_after(self.box.retry(guarded(self._retry), who, shown, queue=False, **quiet))
        answer_after(self.box.edit(guarded(self._edit), who, shown, queue=False, **quiet))
        self.stop.click(self._stop, [page.chat], None, queue=False, **quiet)
        self.box.undo(guarded(self._undo), who, [self.text, self.box], queue=False, **quiet)
        self.box.select(self._show_evidence, who, [evidence], queue=False, **quiet)
        keep = "(chat) => { sessionStorage.setItem('palimpsest.chat', chat); window.palimpsest.chat = chat; }"
        opened = [page.chat, self.box, self.earlier, evidence]
        for event in (
            self.new.click(self._new, [page.owner], opened, queue=False, **quiet),
            self.earlier.input(guarded(self._open), [page.owner, self.earlier], opened, queue=False, **quiet),
            self.delete.click(guarded(self._delete), who, opened, queue=False, **quiet),
            self.box.clear(guarded(self._delete), who, opened, queue=False, **quiet),
        ):
            event.then(None, [page.chat], None, js=keep)

    def on_load(self, identity: str) -> tuple[Any, ...]:
        """Finds or makes the browser's secret and the tab's chat; ``identity`` is "owner chat" from the browser."""
        owner, _, chat = identity.partition(" ")
        owner = owner if 16 <= len(owner) <= 100 else self.page.service.chats.new_owner()
        chat = chat[:100] or self.page.service.chats.new_id()
        try:
            self._turns(owner, chat)
        except PalimpsestError:
            chat = self.page.service.chats.new_id()
        return owner, *self._open(owner, chat)

    def _turns(self, owner: str, chat: str) -> list[Turn]:
        turns: list[Turn] = self.page.service.chats.turns(owner, chat)
        if turns and turns[-1].answer is None and self.page.runs.current(chat) is None:
            self.page.service.chats.update_last(owner, chat, answer="", stopped=True)  # the server went down meanwhile
            turns = self.page.service.chats.turns(owner, chat)
        return turns

    def _titles(self, owner: str, chat: str) -> Any:
        titles = [(item.title, item.id) for item in self.page.service.chats.titles(owner)]
        if chat not in [name for _, name in titles]:
            titles.insert(0, ("New chat", chat))
        return gr.update(choices=titles, value=chat)

    def _open(self, owner: str, chat: str) -> tuple[Any, ...]:
        turns = self._turns(owner, chat)
        last = turns[-1].evidence if turns else None
        shown = evidence_html(last) if last and "error" not in last else EMPTY  # type: ignore[arg-type]
        return chat, messages_of(turns), self._titles(owner, chat), shown

    def _new(self, owner: str) -> tuple[Any, ...]:
        return self._open(owner, self.page.service.chats.new_id())

    def _delete(self, owner: str, chat: str) -> tuple[Any, ...]:
        self.page.runs.stop(chat)
        self.page.service.chats.delete(owner, chat)
        return self._new(owner)

    def _begin(self, text: str, owner: str, chat: str) -> tuple[Any, ...]:
        text = text.strip()
        if not text:
            return "", gr.skip(), gr.skip(), gr.skip()
        return "", *self._ask(text, owner, chat)

    def _ask(self, text: str, owner: str, chat: str) -> tuple[Any, ...]:
        limit = self.page.service.settings.max_message
        if len(text) > limit:
            raise TooLarge(f"The message has {len(text):,} characters; at most {limit:,} can be sent. Shorten it.")
        self.page.runs.start(chat)
        self.page.service.chats.append(owner, chat, Turn(text))
        turns = self.page.service.chats.turns(owner, chat)
        return messages_of(turns), gr.update(visible=False), gr.update(visible=True)

    def _example(self, owner: str, chat: str, event: gr.SelectData) -> tuple[Any, ...]:
        return "", *self._ask(plain_text(event.value), owner, chat)

    def _retry(self, owner: str, chat: str, event: gr.RetryData) -> tuple[Any, ...]:
        return self._again(owner, chat, event.index, None)

    def _edit(self, owner: str, chat: str, event: gr.EditData) -> tuple[Any, ...]:
        return self._again(owner, chat, event.index, plain_text(event.value).strip())

    def _again(self, owner: str, chat: str, index: Any, text: str | None) -> tuple[Any, ...]:
        turns = self.page.service.chats.turns(owner, chat)
        number = turn_at(turns, index)
        if number is None:
            return messages_of(turns), gr.skip(), gr.skip()
        self.page.runs.stop(chat)
        asked = self.page.service.chats.cut(owner, chat, number)
        return self._ask(text or asked or "", owner, chat)

    def _undo(self, owner: str, chat: str, event: gr.UndoData) -> tuple[Any, ...]:
        turns = self.page.service.chats.turns(owner, chat)
        number = turn_at(turns, event.index)
        if number is None:
            return gr.skip(), messages_of(turns)
        self.page.runs.stop(chat)
        text = self.page.service.chats.cut(owner, chat, number)
        return text or "", messages_of(self.page.service.chats.turns(owner, chat))

    def _stop(self, chat: str) -> None:
        self.page.runs.stop(chat)

    def _show_evidence(self, owner: str, chat: str, event: gr.SelectData) -> Any:
        turns = self.page.service.chats.turns(owner, chat)
        number = turn_at(turns, event.index)
        found = turns[number].evidence if number is not None else None
        return evidence_html(found) if found and "error" not in found else gr.skip()

    def _answer(self, owner: str, chat: str, mode: str, strategy: str, both: bool) -> Iterator[tuple[Any, ...]]:
        """Streams the answer to the last, unanswered turn; whatever happens, the turn is closed and the slot freed."""
        service, chats = self.page.service, self.page.service.chats
        turns: list[Turn] = chats.turns(owner, chat)
        cancel = self.page.runs.current(chat)
        idle = (gr.update(visible=True), gr.update(visible=False))
        if not turns or turns[-1].answer is not None or cancel is None:
            yield messages_of(turns), *idle, gr.skip()
            return
        question, earlier = turns[-1].question, turns[:-1]
        history = history_of(earlier, service.settings.history_turns)
        closed: dict[str, Any] = {"answer": "", "stopped": True}
        try:
            text, last = "", 0.0
            stream = service.ask_stream(question, mode=mode, strategy=strategy, history=history, cancel=cancel)
            for piece in stream:
                if isinstance(piece, str):
                    text += piece
                    closed = {"answer": text, "stopped": True}
                    if time.monotonic() - last >= FRAME:
                        last = time.monotonic()
                        yield messages_of([*earlier, Turn(question, text)]), gr.skip(), gr.skip(), gr.skip()
                else:
                    closed = {"answer": piece["answer"], "evidence": piece, "stopped": False}
            if both and not cancel.is_set():
                yield messages_of([*earlier, Turn(question, unedited="", **closed)]), gr.skip(), gr.skip(), gr.skip()
                closed["unedited"] = service.ask_unedited(question, history=history, cancel=cancel)
        except PalimpsestError as error:
            closed = {"answer": "", "evidence": {"error": str(error)}}
        except Exception as error:  # a bug: the page must not stay in the middle of an answer
            log.exception("answering failed")
            closed = {
                "answer": "",
                "evidence": {"error": f"Internal error, {type(error).__name__}: {error}. The log has more."},
            }
        finally:
            self._close(owner, chat, cancel, closed)
        turns = chats.turns(owner, chat)
        found = closed.get("evidence")
        shown = evidence_html(found) if found and "error" not in found else EMPTY
        yield messages_of(turns), *idle, shown

    def _close(self, owner: str, chat: str, cancel: threading.Event, closed: dict[str, Any]) -> None:
        cancel.set()  # also reached when the browser went away: the computation must not go on alone
        if self.page.runs.current(chat) is cancel:
            self.page.service.chats.update_last(owner, chat, **closed)
            self.page.runs.end(chat, cancel)
