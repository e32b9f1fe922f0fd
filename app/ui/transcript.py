"""A conversation as the messages of ``gr.Chatbot``, and the way back from a message to its turn."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from app.conversations import Turn
from app.ui.evidence import evidence_markdown, title_of
from app.ui.render import safe_markdown

STOPPED = "*stopped*"


def messages_of(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """The chat as Gradio shows it."""
    return [message for message, _ in _numbered(turns)]


def turn_at(turns: Sequence[Turn], index: int | Sequence[int]) -> int | None:
    """The turn to which the message at ``index`` belongs."""
    place = index if isinstance(index, int) else index[0]
    numbers = [number for _, number in _numbered(turns)]
    return numbers[place] if 0 <= place < len(numbers) else None


def history_of(turns: Sequence[Turn], limit: int) -> list[dict[str, str]]:
    """The last ``limit`` finished turns as the model reads them; failed and stopped ones are left out."""
    messages: list[dict[str, str]] = []
    for turn in [turn for turn in turns if turn.answer and not turn.stopped][-limit:] if limit else []:
        messages.append({"role": "user", "content": turn.question})
        messages.append({"role": "assistant", "content": turn.answer or ""})
    return messages


def plain_text(value: Any) -> str:
    """What a user typed, from any of the shapes in which Gradio hands a message back."""
    if isinstance(value, list):
        return "\n".join(plain_text(part) for part in value)
    if isinstance(value, dict):
        return plain_text(value.get("text", value.get("content", "")))
    return html.unescape(str(value or ""))


def _numbered(turns: Sequence[Turn]) -> list[tuple[dict[str, Any], int]]:
    out: list[tuple[dict[str, Any], int]] = []
    for number, turn in enumerate(turns):
        out.append(({"role": "user", "content": safe_markdown(turn.question)}, number))
        if turn.answer is None:
            continue
        error = (turn.evidence or {}).get("error")
        if error:
            out.append(
                ({"role": "assistant", "content": f"**That did not work.** {safe_markdown(str(error))}"}, number)
            )
            continue
        out.append(({"role": "assistant", "content": _answer(turn)}, number))
        if turn.evidence:
            metadata = {"title": title_of(turn.evidence), "status": "done"}  # type: ignore[arg-type]
            block = {"role": "assistant", "content": evidence_markdown(turn.evidence), "metadata": metadata}  # type: ignore[arg-type]
            out.append((block, number))
    return out


def _answer(turn: Turn) -> str:
    text = safe_markdown(turn.answer or "")
    if turn.unedited is not None:
        cells = [_cell(text), _cell(safe_markdown(turn.unedited))]
        text = f"| with your edits | unedited model |\n| --- | --- |\n| {cells[0]} | {cells[1]} |"
    if turn.stopped:
        text = f"{text}\n\n{STOPPED}" if text else STOPPED
    return text or "…"


def _cell(text: str) -> str:
    """Text inside one cell of a Markdown table."""
    return (text.strip() or "…").replace("|", "\\|").replace("\n", "<br>")
