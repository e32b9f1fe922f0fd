"""What a comparison found, as plain records: rows of figures, and every probe with every answer."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from evaluation.metrics import Cell, interval
from knowledge.edit import Edit
from knowledge.probes import METRICS, Probe

PROTOCOLS = ("generation", "probability", "token_accuracy")


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """One method's answer to one probe."""

    answer: str
    right: bool
    probability: bool | None = None  # by the probability protocol; None where nothing competes
    token_accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """A probe with what each method said."""

    fact: str  # the edit's statement
    probe: Probe
    expected: str  # what counted as right; the unedited model's own answer where the world does not say
    answers: dict[str, ProbeAnswer]

    def to_dict(self) -> dict[str, Any]:
        answers = {name: asdict(answer) for name, answer in self.answers.items()}
        head = {"fact": self.fact, "kind": self.probe.kind, "prompt": self.probe.text, "form": self.probe.form}
        return head | {"expected": self.expected, "must_change": self.probe.must_change, "answers": answers}


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one method. ``cells`` are by generation, the headline; fluency stands with them."""

    method: str
    title: str
    cells: dict[str, Cell] = field(default_factory=dict)
    probability: dict[str, Cell] = field(default_factory=dict)
    token_accuracy: dict[str, Cell] = field(default_factory=dict)
    kinds: dict[str, Cell] = field(default_factory=dict)  # by generation, a cell a kind of probe
    seconds: float | None = None  # for making the edit
    answer_seconds: float | None = None  # mean, for an answer
    error: str = ""  # why there are no figures


@dataclass(frozen=True, slots=True)
class Comparison:
    """Methods side by side on the same edits and probes."""

    edits: tuple[Edit, ...]
    rows: tuple[Row, ...]
    probes: tuple[ProbeResult, ...]
    cancelled: bool = False
    metrics: tuple[str, ...] = (*METRICS, "fluency")

    @property
    def facts(self) -> tuple[str, ...]:
        return tuple(edit.statement for edit in self.edits)

    def row(self, method: str) -> Row:
        """The row of a method.

        Raises:
            KeyError: it has none.
        """
        for row in self.rows:
            if row.method == method:
                return row
        raise KeyError(f"no row for {method!r}; there are {', '.join(row.method for row in self.rows)}")

    def to_dict(self) -> dict[str, Any]:
        return {
            "facts": list(self.facts),
            "edits": [edit.to_dict() for edit in self.edits],
            "metrics": list(self.metrics),
            "rows": [asdict(row) for row in self.rows],
            "probes": [probe.to_dict() for probe in self.probes],
            "cancelled": self.cancelled,
        }

    def to_csv(self) -> str:
        """One line for each method, protocol and measure."""
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(["method", "title", "protocol", "metric", "value", "low", "high", "n", "seconds", "error"])
        for row in self.rows:
            if row.error:
                writer.writerow([row.method, row.title, "", "", "", "", "", 0, "", row.error])
            for protocol, cells in zip(PROTOCOLS, (row.cells, row.probability, row.token_accuracy), strict=True):
                for metric, cell in cells.items():
                    figures = ["" if x is None else round(x, 4) for x in (cell.value, cell.low, cell.high)]
                    writer.writerow([row.method, row.title, protocol, metric, *figures, cell.n, row.seconds, ""])
        return out.getvalue()

    def probes_csv(self) -> str:
        """One line for each probe, with every method's answer and whether it was right."""
        out = io.StringIO()
        writer = csv.writer(out)
        names = [row.method for row in self.rows if not row.error]
        heads = [head for name in names for head in (name, f"{name} right")]
        writer.writerow(["fact", "kind", "prompt", "expected", *heads])
        for item in self.probes:
            found = [item.answers.get(name) for name in names]
            cells = [cell for answer in found for cell in ((answer.answer, answer.right) if answer else ("", ""))]
            writer.writerow([item.fact, item.probe.kind, item.probe.text, item.expected, *cells])
        return out.getvalue()


def figures(
    name: str,
    title: str,
    probes: Sequence[ProbeResult],
    texts: Sequence[float],
    seconds: float | None,
    answer_seconds: float | None,
) -> Row:
    """The row of a method out of its answers and of the fluency of its texts."""
    generation: dict[str, Cell] = {}
    probability: dict[str, Cell] = {}
    tokens: dict[str, Cell] = {}
    for metric in METRICS:
        given = [item.answers[name] for item in probes if item.probe.metric == metric and name in item.answers]
        generation[metric] = interval([float(answer.right) for answer in given])
        probability[metric] = interval([float(a.probability) for a in given if a.probability is not None])
        tokens[metric] = interval([a.token_accuracy for a in given if a.token_accuracy is not None])
    kinds: dict[str, Cell] = {
        kind: interval([float(i.answers[name].right) for i in probes if i.probe.kind == kind and name in i.answers])
        for kind in dict.fromkeys(item.probe.kind for item in probes)
    }
    generation["fluency"] = interval(list(texts))
    return Row(name, title, generation, probability, tokens, kinds, seconds, answer_seconds)
