"""The Facts tab's own HTML. What was overwritten stays legible underneath, as on the parchment."""

from __future__ import annotations

from collections.abc import Sequence

from app.ui.render import button, esc, exactly, note, when
from app.views import CorrectionView, EventView, FactPage, FactView, ImportReport, ParsePreview

_SHOWN_ROWS = 50


def triple_html(subject: str, relation: str, obj: str) -> str:
    return (
        f'<span class="triple"><span class="chip">{esc(subject)}</span><span class="rel">{esc(relation)}</span>'
        f'<span class="chip new">{esc(obj)}</span></span>'
    )


def preview_html(preview: ParsePreview, present: str | None = None) -> str:
    """How the sentence is read, and what the model says at present."""
    if not preview.ok:
        return note(preview.problem)
    lines = [f"<p>{triple_html(preview.subject, preview.label or preview.relation, preview.object)}</p>"]
    if present is not None:
        lines.append(f'<p class="note quiet">The model now answers: <b>{esc(present or "nothing")}</b></p>')
    if preview.duplicate:
        lines.append(note(f"Memory says so already (#{preview.duplicate.id})."))
    elif preview.conflict:
        lines.append(note(f"Memory now says: {preview.conflict.object} (#{preview.conflict.id})."))
    return f'<div class="preview">{"".join(lines)}</div>'


def conflict_html(preview: ParsePreview) -> str:
    old = preview.conflict
    assert old is not None
    return (
        f'<div class="conflict-text"><p><b>Memory says something else.</b></p>'
        f'<p><span class="erased">{esc(old.statement)}</span> <span class="quiet">#{old.id}</span></p>'
        f'<p class="over">{esc(preview.statement)}</p>'
        f'<p class="note quiet">Replacing keeps the old fact in the history. Keep both where both are true.</p></div>'
    )


def overwritten_html(old: FactView, new: FactView) -> str:
    return f'<p class="note good"><span class="erased">{esc(old.object)}</span> Overwritten: {esc(new.statement)}</p>'


def page_html(page: FactPage, query: str = "", as_of: str = "") -> str:
    """One page of the table, with its pager."""
    if not page.rows:
        if as_of:
            return f'<div class="empty small"><p>Nothing that fits was in force on {esc(as_of)}.</p></div>'
        if query:
            return f'<div class="empty small"><p>No fact matches “{esc(query)}”.</p></div>'
        return (
            '<div class="empty small"><p class="empty-title">Nothing is written over yet</p>'
            "<p>Try: <i>The Eiffel Tower is located in Rome.</i></p></div>"
        )
    rows = "".join(_row(fact) for fact in page.rows)
    return f'<ul class="facts" aria-label="Facts">{rows}</ul>{_pager(page)}'


def _row(fact: FactView) -> str:
    state = "" if fact.current else f'<span class="badge past">{esc(fact.status)}</span>'
    if fact.current:
        last = button("remove", "Remove", key=fact.id, title=f"Remove fact {fact.id}")
    elif fact.status in ("retired", "disabled"):
        last = button("restore", "Restore", key=fact.id, title=f"Restore fact {fact.id}")
    else:
        last = ""
    text = f'<span class="{"" if fact.current else "erased"}">{esc(fact.statement)}</span>'
    held = (f"in the weights too, as #{fact.in_weights} there",) if fact.in_weights else ()
    meta = " · ".join((f"#{fact.id}", f"from {esc(fact.source)}", f"by {esc(fact.actor)}", _valid(fact), *held))
    return (
        f'<li class="fact"><div class="fact-text">{text} {state}<span class="meta">{meta}</span></div>'
        f'<div class="acts">{button("open", "Open", key=fact.id, title=f"Open fact {fact.id}")}{last}</div></li>'
    )


def _valid(fact: FactView) -> str:
    """The interval in which the fact holds."""
    since = when(fact.valid_from) or "ever"
    if fact.valid_to:
        return f"valid {since} – {when(fact.valid_to)}"
    return f"valid since {since}"


def _pager(page: FactPage) -> str:
    count = f"{page.total:,} fact{'' if page.total == 1 else 's'}"
    if page.pages == 1:
        return f'<p class="pager"><span class="quiet">{count}</span></p>'
    back = button("page", "‹", key=page.page - 1, title="Previous page") if page.page > 1 else ""
    on = button("page", "›", key=page.page + 1, title="Next page") if page.page < page.pages else ""
    return f'<p class="pager"><span class="quiet">{count}</span>{back}<span>{page.page} of {page.pages}</span>{on}</p>'


def detail_html(fact: FactView, events: Sequence[EventView]) -> str:
    """Everything known about one fact, and its history."""
    pairs = [
        ("status", fact.status),
        ("in the weights", f"too, by weight edit #{fact.in_weights}" if fact.in_weights else ""),
        ("source", fact.source),
        ("by", fact.actor),
        ("valid from", exactly(fact.valid_from)),
        ("valid to", exactly(fact.valid_to) or ("open" if fact.current else "")),
        ("recorded", exactly(fact.recorded_at)),
        ("taken out", exactly(fact.retired_at)),
        ("replaces", f"#{fact.supersedes_id}" if fact.supersedes_id else ""),
        (
            "relation holds",
            {"functional": "one object at a time", "multi": "several objects"}.get(fact.cardinality, ""),
        ),
        ("model said", fact.target_true or ""),
        ("asked as", fact.question or ""),
        ("reason", fact.reason or ""),
    ]
    data = "".join(f"<dt>{name}</dt><dd>{esc(value)}</dd>" for name, value in pairs if value)
    lines = "".join(
        f'<li><span class="quiet">{exactly(event.at)}{f" by {esc(event.actor)}" if event.actor else ""}</span> '
        f"<b>{esc(event.op)}</b> {esc(event.text)}</li>"
        for event in events
    )
    return (
        f'<div class="detail-text"><p class="detail-title">{triple_html(fact.subject, fact.relation, fact.object)} '
        f'<span class="quiet">#{fact.id}</span></p><dl>{data}</dl>'
        f'<p class="ev-head">History</p><ul class="history">{lines or "<li>No events.</li>"}</ul></div>'
    )


def similar_html(statement: str, similar: Sequence[FactView]) -> str:
    """The question about facts that may say the same in other words."""
    rows = "".join(f'<p>{esc(fact.statement)} <span class="quiet">#{fact.id}</span></p>' for fact in similar)
    return (
        f'<div class="conflict-text"><p><b>This may be there already, in other words.</b></p>{rows}'
        f'<p class="over">{esc(statement)}</p><p class="note quiet">Replacing takes the old one out of force; '
        "the history keeps it.</p></div>"
    )


def changes_html(events: Sequence[EventView]) -> str:
    """The latest changes of all facts, each with a button that takes it back, whatever came after it."""
    if not events:
        return note("Nothing was changed yet.")
    rows = "".join(_change(event) for event in events)
    return f'<ul class="facts" aria-label="Changes">{rows}</ul>'


def _change(event: EventView) -> str:
    undone = event.op.endswith("(undone)")
    act = "redo" if undone else "undo"
    label = f"{'Redo' if undone else 'Undo'} change {event.seq}"
    turn = button(act, "Redo" if undone else "Undo", key=event.seq, title=label) if event.seq else ""
    text = f'<span class="{"erased" if undone else ""}">{esc(event.text or event.op)}</span>'
    meta = f"{esc(event.op)} · {exactly(event.at)} · by {esc(event.actor)}"
    return (
        f'<li class="fact"><div class="fact-text">{text}<span class="meta">{meta}</span></div>'
        f'<div class="acts">{turn}</div></li>'
    )


def corrections_html(rows: Sequence[CorrectionView]) -> str:
    """What was meant by questions, in words, each with the button that takes it back."""
    if not rows:
        return note("None yet. Press “No, I meant …” under an answer, or say it in the chat.")
    items = "".join(
        f'<li class="fact"><div class="fact-text"><span class="{"" if row.active else "erased"}">{esc(row.text)}</span>'
        f'<span class="meta">#{row.id} · asked: {esc(row.question)} · {when(row.recorded_at)} · by {esc(row.actor)}'
        f'</span></div><div class="acts">'
        + (
            button("forget", "Take back", key=row.id, title=f"Take correction {row.id} back")
            if row.active
            else button("recall", "Restore", key=row.id, title=f"Restore correction {row.id}")
        )
        + "</div></li>"
        for row in rows
    )
    return f'<ul class="facts" aria-label="Corrections">{items}</ul>'


def report_html(report: ImportReport) -> str:
    """What an import did, the rows that were left out first."""
    order = {"failed": 0, "skipped": 1, "replaced": 2, "added": 3}
    rows = sorted(report.rows, key=lambda row: (order.get(row.status, 9), row.line))
    lines = "".join(
        f'<tr class="{esc(row.status)}"><td class="num">{row.line}</td><td>{esc(row.status)}</td>'
        f'<td>{esc(row.text[:120])}</td><td class="quiet">{esc(row.why)}</td></tr>'
        for row in rows[:_SHOWN_ROWS]
    )
    more = note(f"and {len(rows) - _SHOWN_ROWS} more rows") if len(rows) > _SHOWN_ROWS else ""
    head = f'<p class="note {"good" if report.added else "bad"}">{report.added} written, {report.skipped} left out.</p>'
    table = (
        '<div class="scroll"><table class="plain"><thead><tr><th>row</th><th>result</th><th>text</th><th>why</th></tr>'
        f"</thead><tbody>{lines}</tbody></table></div>"
    )
    return head + (table if rows else "") + more
