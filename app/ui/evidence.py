"""Why this answer: the collapsible block under an answer, and the Evidence tab."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.ui.render import esc, literal, seconds
from app.views import AnswerJson

EMPTY = (
    '<div class="empty"><p class="empty-title">Why this answer?</p><p>Ask something. The facts that were found, how '
    "sure the gate was that they apply, and the weight edits in effect appear here.</p></div>"
)

_STEP_NAMES = {
    "subquestion": "asks",
    "question": "asks",
    "tentative": "thinks",
    "fact": "finds",
    "retrieved": "finds",
    "verdict": "so it",
    "answer": "answers",
}


def title_of(answer: AnswerJson) -> str:
    """The line on the folded block."""
    where = "memory" if answer["source"] == "memory" else "the model"
    parts = [f"Evidence: from {where}"]
    if answer["source"] == "memory":
        parts.append(answer["strategy"])
    elif answer["weight_edits"]:
        edits = len(answer["weight_edits"])
        parts.append(f"{edits} weight edit{'s' if edits != 1 else ''} on")
    parts.append(seconds(answer["seconds"]))
    return " · ".join(parts)


def evidence_html(answer: AnswerJson | None) -> str:
    """The whole evidence of an answer, for the tab."""
    if answer is None:
        return EMPTY
    memory = answer["source"] == "memory"
    parts = [
        '<div class="evidence">',
        f'<p class="ev-source"><span class="badge {"memory" if memory else "model"}">'
        f"{'from memory' if memory else 'from the model'}</span> "
        f'<span class="quiet">{esc(_strategy_words(answer))}, {esc(seconds(answer["seconds"]))}</span></p>',
        _gate(answer),
        _hits(answer),
        _steps(answer["steps"]),
        _weights(answer["weight_edits"]),
        "</div>",
    ]
    return "".join(parts)


def evidence_markdown(answer: AnswerJson) -> str:
    """The same as Markdown, for the folded block in the chat: it reads well aloud and when it is copied."""
    gate = answer["gate"]
    if gate["threshold"] >= 1:
        told = "not asked"
    else:
        words = "a stored fact applies" if gate["in_scope"] else "no stored fact applies"
        told = f"{words} (score {gate['score']:.2f}, threshold {gate['threshold']:.2f})"
    parts = [f"**Gate**: {told}"]
    if answer["hits"]:
        rows = [f"- {hit['score']:.2f} {literal(hit['text'])} (fact {hit['fact_id']})" for hit in answer["hits"][:8]]
        parts.append("**Facts**\n" + "\n".join(rows))
    if answer["steps"]:
        rows = [
            f"1. {'; '.join(f'{name} {literal(value)}' for name, value in _said(step))}" for step in answer["steps"]
        ]
        parts.append("**Chain**\n" + "\n".join(rows))
    if answer["weight_edits"]:
        rows = [
            f"- {literal(edit.get('method', 'edit'))}: {literal(_facts_of(edit))}"
            for edit in answer["weight_edits"][:8]
        ]
        parts.append("**Weight edits in effect**\n" + "\n".join(rows))
    return "\n\n".join(parts)


def _strategy_words(answer: AnswerJson) -> str:
    name = answer["strategy"]
    return "answered without memory" if name in ("", "none", "model", "base") else f"strategy {name}"


def _gate(answer: AnswerJson) -> str:
    gate = answer.get("gate")
    if not gate or gate.get("score") is None:
        return ""
    score, threshold = float(gate["score"]), float(gate["threshold"])
    if threshold >= 1:  # the router's mark of a gate that was skipped
        return '<p><b>Gate</b>: not asked <span class="quiet">(the mode leaves memory out)</span></p>'
    inside = bool(gate["in_scope"])
    words = "a stored fact applies" if inside else "no stored fact applies"
    return (
        f'<div class="ev-gate"><p><b>Gate</b>: {words} '
        f'<span class="quiet">(score {score:.2f}, threshold {threshold:.2f})</span></p>'
        f'<div class="meter {"in" if inside else "out"}"><span class="fill" style="width:{_percent(score)}%"></span>'
        f'<span class="mark" style="left:{_percent(threshold)}%"></span></div></div>'
    )


def _percent(share: float) -> int:
    return max(0, min(100, round(share * 100)))


def _hits(answer: AnswerJson) -> str:
    if not answer["hits"]:
        return ""
    rows = "".join(
        f'<li><span class="num">{float(hit["score"]):.2f}</span><span>{esc(hit["text"])}</span>'
        f'<span class="quiet">#{esc(hit["fact_id"])}</span></li>'
        for hit in answer["hits"][:8]
    )
    head = "Facts used" if answer["source"] == "memory" else "Nearest facts, not used"
    return f'<p class="ev-head">{head}</p><ul class="ev-hits">{rows}</ul>'


def _steps(steps: list[dict[str, Any]]) -> str:
    if not steps:
        return ""
    rows = []
    for step in steps:
        text = "".join(f'<span class="step"><i>{esc(name)}</i> {esc(value)}</span>' for name, value in _said(step))
        rows.append(f"<li>{text}</li>")
    return f'<p class="ev-head">Chain</p><ol class="ev-steps">{"".join(rows)}</ol>'


def _said(step: dict[str, Any]) -> list[tuple[str, Any]]:
    """(word, text) of what a step did, the well-known parts first."""
    step = {key: value.get("text", "") if isinstance(value, dict) else value for key, value in step.items()}
    known = [(_STEP_NAMES[key], value) for key, value in step.items() if key in _STEP_NAMES and value]
    return known + [(key, value) for key, value in step.items() if key not in _STEP_NAMES and _plain(value)]


def _plain(value: object) -> bool:
    return isinstance(value, (str, int, float)) and not isinstance(value, bool) and value != ""


def _weights(edits: list[dict[str, Any]]) -> str:
    if not edits:
        return ""
    rows = "".join(
        f'<li><span class="badge weight">{esc(edit.get("method", "edit"))}</span>'
        f"<span>{esc(_facts_of(edit))}</span></li>"
        for edit in edits[:8]
    )
    more = f'<li class="quiet">and {len(edits) - 8} more</li>' if len(edits) > 8 else ""
    return f'<p class="ev-head">Weight edits in effect</p><ul class="ev-hits">{rows}{more}</ul>'


def _facts_of(edit: dict[str, Any]) -> str:
    facts = edit.get("facts") or edit.get("statements") or edit.get("edits") or ()
    if isinstance(facts, str):
        return facts
    words = [item if isinstance(item, str) else str(item.get("statement", item)) for item in facts]
    return " ".join(words[:2]) + (f" (+{len(words) - 2})" if len(words) > 2 else "")


def build_evidence_tab() -> gr.HTML:
    """The tab's content; the chat fills it after each answer and when an answer is clicked."""
    return gr.HTML(EMPTY, elem_id="evidence", padding=False)
