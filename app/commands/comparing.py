"""``compare``: the same facts by several methods, side by side."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.common import Data, Device, Json, Model, Namespace, command, emit, opened, progress_to_stderr, table
from app.views import Comparison, MetricCell
from knowledge.errors import InvalidInput


@command
def compare(
    sentences: Annotated[list[str] | None, typer.Argument(help="Facts as sentences.")] = None,
    fact: Annotated[list[int] | None, typer.Option("--fact", help="A stored fact; repeat it.")] = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="A method; repeat it. Default: those of the settings.")
    ] = None,
    probes: Annotated[bool, typer.Option("--probes", help="Also print every probe with every answer.")] = False,
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    namespace: Namespace = None,
) -> None:
    """Compare methods on facts: efficacy, generality, locality, portability, fluency, seconds."""
    facts: list[int | str] = [*(fact or []), *(sentences or [])]
    if not facts:
        raise InvalidInput('Give a sentence ("The Eiffel Tower is located in Rome.") or --fact with a number.')
    with opened(data=data, model=model, device=device, namespace=namespace) as service:
        names = method or service.comparing.usual()
        found = service.comparing.run(facts, names, progress=progress_to_stderr(json_))
        if json_:
            emit(found)
            return
        _show(found)
        if probes:
            _show_probes(found)


def _show(found: Comparison) -> None:
    rows = []
    for row in found.rows:
        cells = (
            [row.error] + [""] * (len(found.metrics) - 1)
            if row.error
            else [_cell(row.cells.get(m)) for m in found.metrics]
        )
        rows.append((row.title, *cells, "-" if row.seconds is None else f"{row.seconds:.2f}"))
    table(("method", *found.metrics, "seconds"), rows)


def _cell(cell: MetricCell | None) -> str:
    if cell is None or cell.value is None:
        return "-"
    if cell.low is None or cell.high is None:
        return f"{cell.value:.2f}"
    return f"{cell.value:.2f} [{cell.low:.2f}, {cell.high:.2f}] n={cell.n}"


def _show_probes(found: Comparison) -> None:
    methods = [row.method for row in found.rows]
    rows = []
    for probe in found.probes:
        answers = [probe.answers.get(name) for name in methods]
        cells = ["-" if a is None else f"{'ok' if a.right else 'NO'} {a.answer[:40]}" for a in answers]
        rows.append((probe.kind, probe.prompt, probe.expected, *cells))
    typer.echo("")
    table(("kind", "probe", "expected", *methods), rows)
