"""Why this answer: the collapsible block under an answer, and the Evidence tab."""

from __future__ import annotations

from typing import Any

import gradio as gr

from app.ui.render import esc, literal, seconds
from app.views import AnswerJson, GateRates

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
    "verdict": "verdict",
    "answer": "answers",
    "correction": "you said",
    "given for": "about",
}
_STRATEGIES = {"ike": "IKE", "mello": "MeLLo", "serac": "SERAC", "memprompt": "MemPrompt", "graph_walk": "graph walk"}
_MODES = {
    "memory": "memory only",
    "weights": "weights only, memory was not asked",
    "both": "memory and weights",
    "base": "the unedited model, memory was not asked",
}


def title_of(answer: AnswerJson) -> str:
    """The line on the folded block."""
    where = "memory" if answer["source"] == "memory" else "the model"
    parts = [f"Evidence: from {where}"]
    if answer["source"] == "memory":
        parts.append(_named(answer["strategy"]))
    elif answer["weight_edits"]:
        edits = len(answer["weight_edits"])
        parts.append(f"{edits} weight edit{'s' if edits != 1 else ''} on")
    parts.append(seconds(answer["seconds"]))
    return " · ".join(parts)


def chosen_words(answer: AnswerJson) -> str:
    """Which strategy answered, who chose it, and why."""
    chosen = answer.get("chosen")
    name = answer["strategy"]
    plain = name in ("", "none", "model", "base")
    what = "The model answered by itself" if plain else f"Strategy {_named(name)}"
    if chosen is None:
        return f"{what}."
    if chosen["mode"] in ("weights", "base"):
        return f"{what}; you chose: {_MODES[chosen['mode']]}."
    mode = f" You chose: {_MODES[chosen['mode']]}." if chosen["mode"] in _MODES else ""
    if chosen["strategy"] != "auto":
        if plain and chosen["strategy"] != name:
            return f"{what}: you chose {_named(chosen['strategy'])}, which found nothing in memory to use.{mode}"
        return f"{what}, chosen by you.{mode}"
    route = answer.get("route")
    if route is None:  # an answer of a chat from before reasons were kept
        return f"{what}, chosen by the router.{mode}"
    if plain and route["strategy"] not in ("model", "base"):
        found = f"{_named(route['strategy'])}, which found nothing in memory to use"
        return f"{what}; the router chose {found} ({route['reason']}).{mode}"
    return f"{what}, chosen by the router: {route['reason']}.{mode}"


def _named(strategy: str) -> str:
    return _STRATEGIES.get(strategy, strategy)


def evidence_html(answer: AnswerJson | None, rates: GateRates | None = None) -> str:
    """The whole evidence of an answer, for the tab.

    Args:
        rates: what was measured of the gate at its threshold.
    """
    if answer is None:
        return EMPTY
    memory = answer["source"] == "memory"
    parts = [
        '<div class="evidence">',
        f'<p class="ev-source"><span class="badge {"memory" if memory else "model"}">'
        f"{'from memory' if memory else 'from the model'}</span> "
        f'<span class="quiet">{esc(seconds(answer["seconds"]))}</span></p>',
        f'<p class="ev-chosen">{esc(chosen_words(answer))}</p>',
        _gate(answer),
        _rates(answer, rates),
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
    parts = [literal(chosen_words(answer)), f"**Gate**: {told}"]
    if answer["hits"]:
        rows = [f"- {hit['score']:.2f} {literal(hit['text'])} (fact {hit['fact_id']})" for hit in answer["hits"][:8]]
        parts.append("**Facts**\n" + "\n".join(rows))
    if answer["steps"]:
        rows = [
            f"1. {'; '.join(f'{name} {literal(value)}' for name, value in (*_said(step), *_from(step)))}"
            for step in answer["steps"]
        ]
        parts.append("**Chain**\n" + "\n".join(rows))
    if answer["weight_edits"]:
        rows = [
            f"- {literal(edit.get('method', 'edit'))}: {literal(_facts_of(edit))}"
            for edit in answer["weight_edits"][:8]
        ]
        parts.append("**Weight edits in effect**\n" + "\n".join(rows))
    return "\n\n".join(parts)


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


def _rates(answer: AnswerJson, rates: GateRates | None) -> str:
    """The gate's measured rates, folded away by kind of question."""
    if rates is None or float(answer["gate"]["threshold"]) >= 1:
        return ""
    if rates.true_positive_rate is None or rates.false_positive_rate is None:
        return '<p class="note quiet">No rates were measured at this threshold.</p>'
    rows = "".join(
        f'<tr><td>{esc(kind)}</td><td class="num">{share:.1%}</td><td class="num quiet">{n:,}</td></tr>'
        for kind, share, n in rates.by_kind
    )
    table = (
        '<table class="plain"><thead><tr><th>questions</th><th>let through</th><th>n</th></tr></thead>'
        f"<tbody>{rows}</tbody></table>"
        if rows
        else ""
    )
    return (
        f'<details class="ev-rates"><summary>Measured at {rates.threshold:.2f}: lets through '
        f"{rates.true_positive_rate:.1%} of the questions that a fact answers (n {rates.positives:,}), "
        f"{rates.false_positive_rate:.1%} of the others (n {rates.negatives:,})</summary>{table}"
        f'<p class="note quiet">On {esc(rates.measured_on)}.</p></details>'
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
        rows.append(f"<li>{text}{_source(step)}</li>")
    return f'<p class="ev-head">Chain</p><ol class="ev-steps">{"".join(rows)}</ol>'


def _from(step: dict[str, Any]) -> list[tuple[str, str]]:
    source = step.get("source")
    return [("from", "memory" if source == "memory" else "the model")] if source in ("memory", "model") else []


def _source(step: dict[str, Any]) -> str:
    """Whether a hop was answered from memory or by the model."""
    source = step.get("source")
    if source not in ("memory", "model"):
        return ""
    words = "from memory" if source == "memory" else "from the model"
    return f'<span class="badge {source}">{words}</span>'


def _said(step: dict[str, Any]) -> list[tuple[str, Any]]:
    """(word, text) of what a step did, the well-known parts first."""
    step = {key: _fact_words(value) if isinstance(value, dict) else value for key, value in step.items()}
    known = [(_STEP_NAMES[key], value) for key, value in step.items() if key in _STEP_NAMES and value]
    rest = [(k, v) for k, v in step.items() if k not in _STEP_NAMES and k != "source" and _plain(v)]
    return known + rest


def _fact_words(value: dict[str, Any]) -> str:
    number = value.get("fact_id")
    return f"{value.get('text', '')}{f' (#{number})' if number is not None else ''}"


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
