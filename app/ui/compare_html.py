"""Tables of a comparison as HTML and as CSV."""

from __future__ import annotations

import csv
import io

from app.ui.render import esc, note, seconds
from app.views import Comparison, MethodRow, MetricCell, ProbeRow

RATES = ("efficacy", "generality", "locality", "portability")
EMPTY = (
    '<div class="empty small"><p class="empty-title">Methods side by side</p><p>Choose a fact and the methods. Each '
    "writes the fact its own way and is then asked the same questions: the fact itself, in other words, what must not "
    "change, and what follows from it.</p></div>"
)
_MEANING = {
    "efficacy": "the fact itself is answered",
    "generality": "the fact in other words",
    "locality": "what must not change has not changed",
    "portability": "what follows from the fact",
    "fluency": "entropy of what the model writes; a fall means damage",
}
KIND_NAMES = {
    "efficacy": "the fact itself",
    "generality": "in other words",
    "locality_neighbour": "other subjects",
    "locality_relation": "the subject's other facts",
    "locality_unrelated": "unrelated",
    "portability_alias": "under another name",
    "portability_onehop": "one step further",
    "portability_inverse": "the other way round",
}
_SHOWN_PROBES = 80


def kind_name(kind: str) -> str:
    return KIND_NAMES.get(kind, kind.replace("_", " "))


def table_html(found: Comparison) -> str:
    """Methods x metrics, best rate of each column marked, intervals and n below each figure."""
    best = {metric: _best(found, metric) for metric in found.metrics}
    head = "".join(f'<th title="{esc(_MEANING.get(metric, ""))}">{esc(metric)}</th>' for metric in found.metrics)
    rows = "".join(_row(row, found.metrics, best) for row in found.rows)
    facts = "; ".join(found.facts[:3]) + (f" and {len(found.facts) - 3} more" if len(found.facts) > 3 else "")
    return (
        f'<p class="note quiet">On: {esc(facts)}</p><div class="scroll"><table class="plain figures"><thead><tr>'
        f"<th>method</th>{head}<th>time</th></tr></thead><tbody>{rows}</tbody></table></div>"
        '<p class="note quiet">Share of right answers, generated freely, with the 95 % bootstrap interval and the '
        "number of questions.</p>"
    )


def _best(found: Comparison, metric: str) -> float | None:
    values = [
        cell.value
        for row in found.rows
        if row.method != "base" and (cell := row.cells.get(metric)) is not None and cell.value is not None
    ]
    return max(values) if len(values) > 1 and metric in RATES else None


def _row(row: MethodRow, metrics: tuple[str, ...], best: dict[str, float | None]) -> str:
    if row.error:
        return f'<tr><th>{esc(row.title)}</th><td class="bad" colspan="{len(metrics) + 1}">{esc(row.error)}</td></tr>'
    cells = "".join(_cell(row.cells.get(metric), metric, best.get(metric), row.method) for metric in metrics)
    return f'<tr><th>{esc(row.title)}</th>{cells}<td class="num">{esc(seconds(row.seconds))}</td></tr>'


def _cell(cell: MetricCell | None, metric: str, best: float | None, method: str) -> str:
    if cell is None or cell.value is None:
        return '<td class="num quiet">-</td>'
    rate = metric in RATES
    figure = f"{cell.value:.2f}" if rate else f"{cell.value:.0f}"
    mark = " best" if best is not None and method != "base" and cell.value >= best else ""
    spread = ""
    if cell.low is not None and cell.high is not None:
        spread = f"{cell.low:.2f}–{cell.high:.2f}" if rate else f"{cell.low:.0f}–{cell.high:.0f}"
    count = f"n {cell.n}" if cell.n else ""
    small = "<br>".join(part for part in (spread, count) if part)
    return f'<td class="num{mark}">{figure}<span class="small">{small}</span></td>'


def probes_html(found: Comparison, kind: str = "", missed: str = "") -> str:
    """Every probe with every method's answer; ``missed`` keeps those that this method got wrong."""
    rows = [
        probe
        for probe in found.probes
        if (not kind or probe.kind == kind)
        and (not missed or (missed in probe.answers and not probe.answers[missed].right))
    ]
    if not rows:
        return note("No probe fits: nothing was got wrong here." if missed else "There are no probes of this kind.")
    head = "".join(f"<th>{esc(row.title)}</th>" for row in found.rows)
    body = "".join(_probe(probe, [row.method for row in found.rows]) for probe in rows[:_SHOWN_PROBES])
    more = note(f"and {len(rows) - _SHOWN_PROBES} more; the CSV has them all") if len(rows) > _SHOWN_PROBES else ""
    return (
        f'<div class="scroll"><table class="plain probes"><thead><tr><th>probe</th><th>expected</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{more}"
    )


def _probe(probe: ProbeRow, methods: list[str]) -> str:
    cells = ""
    for method in methods:
        answer = probe.answers.get(method)
        if answer is None:
            cells += '<td class="quiet">-</td>'
            continue
        mark = (
            '<span class="ok" aria-label="right">✓</span>'
            if answer.right
            else '<span class="no" aria-label="wrong">✗</span>'
        )
        cells += f"<td>{mark} {esc(answer.answer[:80] or 'nothing')}</td>"
    return (
        f'<tr><td>{esc(probe.prompt)}<span class="small">{esc(kind_name(probe.kind))}</span></td>'
        f"<td>{esc(probe.expected)}</td>{cells}</tr>"
    )


def csv_text(found: Comparison) -> str:
    """Rates first, then a blank line, then the probes. Cells that a spreadsheet would run are quoted with '."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["method", "metric", "value", "low", "high", "n", "seconds", "error"])
    for row in found.rows:
        if row.error:
            writer.writerow([row.method, "", "", "", "", "", row.seconds, _inert(row.error)])
        for metric in found.metrics:
            cell = row.cells.get(metric)
            if cell is not None:
                writer.writerow([row.method, metric, cell.value, cell.low, cell.high, cell.n, row.seconds, ""])
    writer.writerow([])
    writer.writerow(["fact", "kind", "prompt", "expected", "method", "answer", "right"])
    for probe in found.probes:
        for method, answer in probe.answers.items():
            text = [probe.fact, probe.kind, probe.prompt, probe.expected, method, answer.answer]
            writer.writerow([*map(_inert, text), answer.right])
    return out.getvalue()


def _inert(text: str) -> str:
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text
