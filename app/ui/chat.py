"""The chat: streaming, stop, retry, undo, edit, clear, earlier chats, and the comparison with the unedited model.

The server holds the truth. Every handler reads the conversation from the store by (owner, chat), changes it there and
shows it anew, so a reload, a second tab or a restart of the server loses nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from app.conversations import Turn
from app.errors import TooLarge
from app.ui.evidence import EMPTY, evidence_html
from app.ui.page import MODEL_SLOT, REFRESH, Page, when_known
from app.ui.render import guarded
from app.ui.transcript import history_of, messages_of, plain_text, turn_at
from knowledge.errors import InvalidInput, PalimpsestError

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
FRAME = 0.04  # seconds between two updates of the page while an answer streams


@dataclass
class ChatTab:
    """The chat column; :meth:`build` lays it out, :meth:`wire` connects it."""

    page: Page
    _turning: threading.Lock = field(default_factory=threading.Lock)  # a late answer must not close another question
    _written: dict[str, str] = field(default_factory=dict)  # by chat: what its answer in progress says so far

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
        self.meant_open = gr.Button("No, I meant …", size="sm", visible=False, elem_id="meant-open", min_width=120)
        with gr.Row(elem_classes="meant-row", visible=False, equal_height=True) as self.meant_row:
            self.meant = gr.Textbox(
                show_label=False, container=False, placeholder="No, I meant the river.", lines=1, max_lines=3, scale=6,
                max_length=1_000, elem_id="meant", label="What you meant", min_width=160,
            )  # fmt: skip
            self.meant_keep = gr.Button(
                "Keep and ask again", variant="primary", size="sm", scale=2, min_width=130, elem_id="meant-keep"
            )
            self.meant_cancel = gr.Button("Cancel", size="sm", scale=1, min_width=70, elem_id="meant-cancel")
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
        meant = [self.meant_open, self.meant_row]
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}

        def answer_after(begun: Any) -> Any:
            # "multiple": by itself the browser drops an event whose forerunner it has not seen the end of, and the
            # next question would stay without an answer.
            return begun.success(
                guarded(self._answer), [*who, *pickers], [*shown, evidence],
                concurrency_id=MODEL_SLOT, concurrency_limit=1, trigger_mode="multiple", **quiet,
            ).then(lambda owner, chat: (self._titles(owner, chat), page.header_html(), *self.may_correct(owner, chat)),
                   who, [self.earlier, page.header, *meant], **REFRESH)  # fmt: skip

        for trigger in (self.text.submit, self.send.click):
            begun = trigger(
                guarded(self._begin), [self.text, *who], [self.text, *shown], queue=False,
                js=when_known("text", "owner", "chat"), **quiet,
            )  # fmt: skip
            answer_after(begun)
        answer_after(
            self.box.example_select(
                guarded(self._example),
                who,
                [self.text, *shown],
                queue=False,
                js=when_known("owner", "chat"),
                **quiet,
            )
        )
        for trigger in (self.meant.submit, self.meant_keep.click):
            answer_after(
                trigger(guarded(self._correct), [self.meant, *who], [self.meant, self.meant_row, *shown], **quiet)
            )
        self.meant_open.click(
            lambda: (gr.update(visible=False), gr.update(visible=True)), None, meant, queue=False, **quiet
        ).then(None, None, None, js="() => setTimeout(() => document.querySelector('#meant textarea')?.focus(), 100)")
        self.meant_cancel.click(
            lambda: (gr.update(visible=True), gr.update(visible=False), ""), None, [*meant, self.meant],
            queue=False, **quiet,
        )  # fmt: skip
        answer_after(self.box.retry(guarded(self._retry), who, shown, queue=False, **quiet))
        answer_after(self.box.edit(guarded(self._edit), who, shown, queue=False, **quiet))
        self.stop.click(self._stop, [page.chat], None, queue=False, **quiet)
        self.box.undo(guarded(self._undo), who, [self.text, self.box], queue=False, **quiet)
        self.box.select(self._show_evidence, who, [evidence], queue=False, **quiet)
        keep = "(chat) => { sessionStorage.setItem('palimpsest.chat', chat); window.palimpsest.chat = chat; }"
        opened = [page.chat, self.box, self.earlier, evidence]
        for event in (
            self.new.click(self._new, [page.owner], opened, js=when_known("owner"), queue=False, **quiet),
            self.earlier.input(guarded(self._open), [page.owner, self.earlier], opened, queue=False, **quiet),
            self.delete.click(guarded(self._delete), who, opened, js=when_known("owner", "chat"), queue=False, **quiet),
            self.box.clear(guarded(self._delete), who, opened, queue=False, **quiet),
        ):
            event.then(None, [page.chat], None, js=keep).then(self.may_correct, who, meant, queue=False, **quiet)

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
        chats = self.page.service.chats
        with self._turning:
            turns: list[Turn] = chats.turns(owner, chat)
            if turns and turns[-1].answer is None and self.page.runs.current(chat) is None:
                chats.update_last(owner, chat, answer="", stopped=True)  # the server went down meanwhile
                turns = chats.turns(owner, chat)
        return turns

    def _titles(self, owner: str, chat: str) -> Any:
        titles = [(item.title, item.id) for item in self.page.service.chats.titles(owner)]
        if chat not in [name for _, name in titles]:
            titles.insert(0, ("New chat", chat))
        return gr.update(choices=titles, value=chat)

    def _open(self, owner: str, chat: str) -> tuple[Any, ...]:
        turns = self._turns(owner, chat)
        last = turns[-1].evidence if turns else None
        return chat, messages_of(turns), self._titles(owner, chat), self._evidence(last)

    def _new(self, owner: str) -> tuple[Any, ...]:
        return self._open(owner, self.page.service.chats.new_id())

    def _delete(self, owner: str, chat: str) -> tuple[Any, ...]:
        with self._turning:
            self._interrupt(chat)
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
        chats = self.page.service.chats
        with self._turning:
            earlier = chats.turns(owner, chat)
            if earlier and earlier[-1].answer is None:  # asked on while an answer was being written
                chats.update_last(owner, chat, answer=self._written.pop(chat, ""), stopped=True)
            self.page.runs.start(chat)
            chats.append(owner, chat, Turn(text))
            turns = chats.turns(owner, chat)
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
        with self._turning:
            self._interrupt(chat)
            asked = self.page.service.chats.cut(owner, chat, number)
        return self._ask(text or asked or "", owner, chat)

    def may_correct(self, owner: str, chat: str) -> tuple[Any, Any]:
        """The button under the last answer, where there is an answer, and its box, closed."""
        return gr.update(visible=self._corrected(self._turns(owner, chat)) is not None), gr.update(visible=False)

    @staticmethod
    def _corrected(turns: list[Turn]) -> int | None:
        """The place of the last turn that a correction can be about: it was answered, and is a question itself."""
        for number in range(len(turns) - 1, -1, -1):
            if turns[number].answer and not turns[number].about:
                return number
        return None

    def _correct(self, words: str, owner: str, chat: str) -> tuple[Any, ...]:
        """The button: what was meant becomes the next message of the chat, and is answered as one."""
        words = words.strip()
        if not words:
            raise InvalidInput("Say what you meant first, for example: No, I meant the river.")
        turns = self.page.service.chats.turns(owner, chat)
        if turns and turns[-1].answer is None:
            raise InvalidInput("Wait for the answer, or stop it, before you correct it.")
        number = self._corrected(turns)
        if number is None:
            raise InvalidInput("There is no answer to correct yet. Ask something first.")
        message = words if self.page.service.corrections.is_correction(words) else f"No, I meant: {words}"
        return "", gr.update(visible=False), *self._ask(message, owner, chat)

    def _undo(self, owner: str, chat: str, event: gr.UndoData) -> tuple[Any, ...]:
        turns = self.page.service.chats.turns(owner, chat)
        number = turn_at(turns, event.index)
        if number is None:
            return gr.skip(), messages_of(turns)
        with self._turning:
            self._interrupt(chat)
            text = self.page.service.chats.cut(owner, chat, number)
        return text or "", messages_of(self.page.service.chats.turns(owner, chat))

    def _stop(self, chat: str) -> None:
        self.page.runs.stop(chat)

    def _interrupt(self, chat: str) -> None:
        """Stops an answer whose question goes away; nothing of it is kept."""
        running = self.page.runs.current(chat)
        if running is not None:
            running.set()
            self.page.runs.end(chat, running)
        self._written.pop(chat, None)

    def _show_evidence(self, owner: str, chat: str, event: gr.SelectData) -> Any:
        turns = self.page.service.chats.turns(owner, chat)
        number = turn_at(turns, event.index)
        found = turns[number].evidence if number is not None else None
        return self._evidence(found) if found and "error" not in found else gr.skip()

    def _evidence(self, found: Any) -> str:
        """The evidence of a turn for the tab, with the gate's measured rates once the gate is there."""
        if not found or "error" in found:
            return EMPTY
        asked = float(found["gate"]["threshold"]) < 1 and self.page.service.status().state == "ready"
        return evidence_html(found, self.page.service.gate_rates() if asked else None)

    def _kept(
        self, owner: str, chat: str, turns: list[Turn], number: int, mode: str, strategy: str, cancel: threading.Event
    ) -> str:
        """Keeps the last message as a correction of an earlier question, and gives that question.

        Raises:
            InvalidInput: the mode or the strategy would not look at it.
        """
        if mode in ("weights", "base") or strategy not in ("auto", "memprompt"):
            raise InvalidInput(
                "A correction in words is kept in memory and read by MemPrompt. "
                "Answer from auto, memory or both, and choose the strategy auto or MemPrompt."
            )
        question = turns[number].question
        self.page.service.corrections.add(question, turns[-1].question)
        with self._turning:
            if self.page.runs.current(chat) is cancel:
                self.page.service.chats.update_last(owner, chat, about=question)
        return question

    def _answer(self, owner: str, chat: str, mode: str, strategy: str, both: bool) -> Iterator[tuple[Any, ...]]:
        """Streams the answer to the last, unanswered turn; whatever happens, the turn is closed and the slot freed."""
        service, chats = self.page.service, self.page.service.chats
        with self._turning:  # the question and the event that stops it belong together
            turns: list[Turn] = chats.turns(owner, chat)
            cancel = self.page.runs.current(chat)
        idle = (gr.update(visible=True), gr.update(visible=False))
        if not turns or turns[-1].answer is not None or cancel is None:
            yield messages_of(turns), *idle, gr.skip()
            return
        question, earlier = turns[-1].question, turns[:-1]
        said, before = question, earlier
        chosen = {"mode": mode, "strategy": strategy}
        closed: dict[str, Any] = {"answer": "", "stopped": True}
        try:
            number = self._corrected(earlier)
            if number is not None and service.corrections.is_correction(question):
                question, earlier = self._kept(owner, chat, turns, number, mode, strategy, cancel), earlier[:number]
            history = history_of(earlier, service.settings.history_turns)
            text, last = "", 0.0
            stream = service.ask_stream(question, mode=mode, strategy=strategy, history=history, cancel=cancel)
            for piece in stream:
                if isinstance(piece, str):
                    text += piece
                    closed = {"answer": text, "stopped": True}
                    self._note(chat, cancel, text)
                    if time.monotonic() - last >= FRAME:
                        last = time.monotonic()
                        yield messages_of([*before, Turn(said, text)]), gr.skip(), gr.skip(), gr.skip()
                else:
                    closed = {"answer": piece["answer"], "evidence": {**piece, "chosen": chosen}, "stopped": False}
            if both and not cancel.is_set():
                yield messages_of([*before, Turn(said, unedited="", **closed)]), gr.skip(), gr.skip(), gr.skip()
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
        with self._turning:
            turns, going_on = chats.turns(owner, chat), self.page.runs.current(chat) is not None
        if going_on:  # the next question has been asked meanwhile: its own event shows what follows
            yield messages_of(turns), gr.skip(), gr.skip(), gr.skip()
        else:
            yield messages_of(turns), *idle, self._evidence(closed.get("evidence"))

    def _close(self, owner: str, chat: str, cancel: threading.Event, closed: dict[str, Any]) -> None:
        cancel.set()  # also reached when the browser went away: the computation must not go on alone
        with self._turning:
            if self.page.runs.current(chat) is cancel:
                self.page.service.chats.update_last(owner, chat, **closed)
                self.page.runs.end(chat, cancel)
                self._written.pop(chat, None)

    def _note(self, chat: str, cancel: threading.Event, text: str) -> None:
        with self._turning:
            if self.page.runs.current(chat) is cancel:
                self._written[chat] = text
