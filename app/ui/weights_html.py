"""The Weights tab's own HTML: the ledger with what the guard saw, and the outcome of a consolidation."""

from __future__ import annotations

from collections.abc import Sequence

from app.ui.render import button, esc, note, seconds, when
from app.views import ConsolidationView, DueFact, EntryView


def ledger_html(entries: Sequence[EntryView]) -> str:
    """The ledger, newest first."""
    if not entries:
        return (
            '<div class="empty small"><p class="empty-title">The weights are as they came</p>'
            "<p>An edit written here changes what the model itself answers, without memory.</p></div>"
        )
    return f'<ul class="facts" aria-label="Weight edits">{"".join(_entry(entry) for entry in entries)}</ul>'


def _entry(entry: EntryView) -> str:
    facts = " ".join(entry.facts[:3]) + (f" and {len(entry.facts) - 3} more" if len(entry.facts) > 3 else "")
    layers = "layer" + ("s " if len(entry.layers) != 1 else " ") + (", ".join(map(str, entry.layers)) or "-")
    if entry.undone:
        state, buttons = '<span class="badge past">undone</span>', button("redo", "Redo", key=entry.id)
    elif not entry.fits:
        state, buttons = '<span class="badge past">other model</span>', button("undo", "Undo", key=entry.id)
    else:
        state = f'<span class="badge {"weight" if entry.active else "past"}">{"on" if entry.active else "off"}</span>'
        switch = button("off", "Off", key=entry.id) if entry.active else button("on", "On", key=entry.id)
        buttons = switch + button("undo", "Undo", key=entry.id)
    facts = facts or f"imported from {entry.imported_from or 'elsewhere'}"
    off = "" if entry.active else ' class="erased"' if entry.undone else ' class="quiet"'
    meta = (
        f"#{entry.id} · {esc(entry.method)} · {layers} · |ΔW|/|W| {entry.relative_norm:.2%} · "
        f"{seconds(entry.seconds)} · {when(entry.created_at)}"
    )
    return (
        f'<li class="fact"><div class="fact-text"><span{off}>{esc(facts)}</span> {state}'
        f'<span class="meta">{meta}</span>{_guard(entry)}</div><div class="acts">{buttons}</div></li>'
    )


def _guard(entry: EntryView) -> str:
    """What the guard measured, and what it warned of."""
    parts = [entry.layer_source] if entry.layer_source else []
    if entry.on_top_of and not entry.undone:
        parts.append(f"on top of {', '.join(f'#{number}' for number in entry.on_top_of[:8])}")
    if entry.locality_before is not None and entry.locality_after is not None:
        parts.append(
            f"other answers kept {entry.locality_before:.0%} before, {entry.locality_after:.0%} after "
            f"(n {entry.locality_n})"
        )
    seen = f'<span class="meta">{esc(" · ".join(parts))}</span>' if parts else ""
    return seen + "".join(f'<span class="warned">{esc(warning)}</span>' for warning in entry.warnings)


def undone_html(entry: EntryView, later: Sequence[EntryView]) -> str:
    """That an entry is undone, and the offer to make again what was computed on top of it."""
    told = note(f"Entry #{entry.id} is undone; the base weights were never touched.", "good")
    if not later:
        return told
    numbers = ",".join(str(item.id) for item in later)
    names = "; ".join(f"#{item.id} {' '.join(item.facts[:2])}".strip() for item in later[:6])
    more = f" and {len(later) - 6} more" if len(later) > 6 else ""
    made = f"{names}{more}".removesuffix(".")  # facts end in a full stop of their own
    stays = f"Computed while it was on: {made}. They count on as they were made, for a model that had it."
    return f"{told}{note(stays)}<p>{button('recompute', 'Make them again without it', key=numbers)}</p>"


def due_html(due: Sequence[DueFact], at_least: int) -> str:
    """The facts that consolidation would write, most served first."""
    if not due:
        return note(f"No fact that is not in the weights already has served {at_least} times.")
    rows = "".join(
        f'<li class="fact"><div class="fact-text">{esc(fact.statement)}<span class="meta">#{fact.id} · served '
        f"{fact.times} times</span></div></li>"
        for fact in due[:12]
    )
    more = note(f"and {len(due) - 12} more") if len(due) > 12 else ""
    return f'<ul class="facts" aria-label="Often-used facts">{rows}</ul>{more}'


def verdict_html(found: ConsolidationView) -> str:
    """What became of a consolidation: kept or undone, with the figures that decided it."""
    count = f"{len(found.written)} fact{'' if len(found.written) == 1 else 's'}"
    figures = []
    if found.efficacy is not None:
        figures.append(f"own probes right {found.efficacy:.0%}")
    if found.generality is not None:
        figures.append(f"other wordings right {found.generality:.0%}")
    if found.locality_before is not None and found.locality_after is not None:
        figures.append(
            f"other answers kept {found.locality_before:.0%} before, {found.locality_after:.0%} after "
            f"(n {found.locality_n})"
        )
    if found.kept:
        head = note(f"{count} written into the weights as #{found.entry}; they stay in memory too.", "good")
    elif found.written:
        head = note(f"Undone, the weights are as before. {' '.join(found.reasons)}", "bad")
    else:
        head = note(" ".join(found.reasons) or "Nothing was written.")
    rest = [
        ("in the weights already", found.known),
        ("left out, since another says the same otherwise", found.clashing),
        ("did not hold", found.failed),
    ]
    lines = [f"{name}: {' '.join(items[:5])}" for name, items in rest if items]
    return head + "".join(note(line) for line in ([", ".join(figures)] if figures else []) + lines)
