"""``weights apply|list|show|on|off|undo|redo|recompute|export|import|consolidate|methods``: facts written into the
parameters.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.common import Data, Device, Json, Model, Namespace, command, emit, opened, progress_to_stderr, table
from app.settings import load_settings
from app.views import EntryView, as_json
from knowledge.errors import InvalidInput

app = typer.Typer(help="Weight edits and their ledger.", no_args_is_help=True)

EntryId = Annotated[int, typer.Argument(help="Number of the entry.")]


@app.command()
@command
def apply(
    sentence: Annotated[str | None, typer.Argument(help="The fact as one sentence.")] = None,
    fact: Annotated[list[int] | None, typer.Option("--fact", help="or a stored fact; repeat it for a batch.")] = None,
    method: Annotated[str | None, typer.Option("--method", help="The editor; see 'weights methods'.")] = None,
    guard: Annotated[
        str | None, typer.Option("--guard", help="Past a limit of size or locality: off, warn or refuse.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="A setting of the method, NAME=VALUE; repeat it for more.")
    ] = None,
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    namespace: Namespace = None,
) -> None:
    """Write a fact into the weights. The base weights stay as they are; the change lies on top."""
    from editors.registry import parsed_settings

    settings = parsed_settings(set_ or [])
    chosen = method or load_settings().method
    with opened(data=data, model=model, device=device, namespace=namespace) as service:
        entry = service.weights.apply(
            chosen,
            text=sentence,
            fact_ids=fact or [],
            settings=settings,
            guard=guard,
            progress=progress_to_stderr(json_),
        )
        _told(entry, json_)
        if not json_:
            _asked(service, entry)
        for warning in entry.warnings:
            typer.echo(f"Warning: {warning}", err=True)


def _asked(service: Any, entry: EntryView) -> None:
    """What the model says now to the entry's first facts."""
    for found in service.weights.taken(entry.id):
        typer.echo(f"  {found.words}")


def _desk(service: Any) -> Any:
    """The further operations on a service's ledger."""
    from app.ledger_desk import LedgerDesk

    engine = getattr(service, "engine", None)
    if engine is None:
        raise InvalidInput("This service keeps no ledger of its own.")
    return LedgerDesk(engine)


def _told(entry: EntryView, json_: bool) -> None:
    if json_:
        emit(entry)
        return
    state = "undone" if entry.undone else "on" if entry.active else "off"
    typer.echo(f"#{entry.id} {entry.method} {state}: {' '.join(entry.facts)}".rstrip(": "))


@app.command("list")
@command
def list_(
    undone: Annotated[bool, typer.Option("--all", help="Also undone entries.")] = False,
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
) -> None:
    """The ledger, newest first."""
    with opened(data=data, model=model, device=device) as service:
        found = service.weights.entries(include_undone=undone)
        if json_:
            emit({"entries": found})
        elif not found:
            past = [] if undone else service.weights.entries(include_undone=True)
            typer.echo(f"No weight edits in force; {len(past)} undone (see --all)." if past else "No weight edits yet.")
        else:
            table(
                ("id", "method", "state", "layers", "|dW|/|W|", "seconds", "facts"),
                [
                    (
                        entry.id,
                        entry.method,
                        "undone" if entry.undone else "on" if entry.active else "off",
                        ",".join(map(str, entry.layers)),
                        f"{entry.relative_norm:.4f}",
                        f"{entry.seconds:.1f}",
                        (" ".join(entry.facts[:3]) or "(imported; see 'weights show')")
                        + ("" if entry.fits else "  (made for another model)"),
                    )
                    for entry in found
                ],
            )


@app.command()
@command
def methods(json_: Json = False) -> None:
    """The editors that there are."""
    from app.commands.common import make_service

    found = make_service(load_settings()).weights.methods()
    if json_:
        emit({"methods": found})
    else:
        for item in found:
            typer.echo(f"{item.name:<10} {item.title} (arXiv {item.paper}): {item.summary}")
            typer.echo(f"{'':<10}   several facts at once: {item.batch}")
            typer.echo(f"{'':<10}   one call after another: {item.sequence}")


@app.command("on")
@command
def on(entry_id: EntryId, json_: Json = False, data: Data = None, model: Model = None, device: Device = None) -> None:
    """Switch an entry on."""
    with opened(data=data, model=model, device=device) as service:
        _told(service.weights.set_active(entry_id, True), json_)


@app.command("off")
@command
def off(entry_id: EntryId, json_: Json = False, data: Data = None, model: Model = None, device: Device = None) -> None:
    """Switch an entry off."""
    with opened(data=data, model=model, device=device) as service:
        _told(service.weights.set_active(entry_id, False), json_)


@app.command()
@command
def undo(
    entry_id: EntryId,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Make the later entries again that were computed on top of it.")
    ] = False,
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
) -> None:
    """Undo an entry, whatever came after it; names the later entries that were computed on top of it."""
    with opened(data=data, model=model, device=device) as service:
        # Looked up before the undo, so that an entry that cannot be found fails first.
        later = _desk(service).dependents(entry_id) if hasattr(service, "engine") else []
        entry = service.weights.undo(entry_id)
        numbers = [item.id for item in later]
        made = _desk(service).recompute(numbers, progress=progress_to_stderr(json_)) if recompute and numbers else []
        if json_:
            emit({**as_json(entry), "computed_on_top": numbers, "recomputed": made})
            return
        _told(entry, False)
        if made:
            typer.echo("Made again without it:")
            for item in made:
                _told(item, False)
                _asked(service, item)
        elif later:
            typer.echo(f"Computed while it was on: {_listed(later)}")
            typer.echo(
                "They count on as they were made, for a model that had it. To fit them to the model without it: "
                f"weights recompute {' '.join(map(str, numbers))}"
            )


def _listed(entries: list[EntryView]) -> str:
    return "; ".join(f"#{entry.id} {' '.join(entry.facts[:2])}".strip() for entry in entries)


@app.command()
@command
def recompute(
    entry_ids: Annotated[list[int], typer.Argument(help="Numbers of entries.")],
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
) -> None:
    """Make entries again on what is on now; each takes the old one's place."""
    with opened(data=data, model=model, device=device) as service:
        made = _desk(service).recompute(entry_ids, progress=progress_to_stderr(json_))
        if json_:
            emit({"entries": made})
            return
        for entry in made:
            _told(entry, False)
            _asked(service, entry)


@app.command()
@command
def show(entry_id: EntryId, json_: Json = False, data: Data = None, model: Model = None, device: Device = None) -> None:
    """One entry with its size by module, its locality sample and its warnings."""
    with opened(data=data, model=model, device=device) as service:
        entry = _desk(service).entry(entry_id)
        if json_:
            emit(entry.to_json())
            return
        for edit in entry.edits:
            typer.echo(edit.statement)
        if entry.imported_from:
            typer.echo(f"Imported from {entry.imported_from}.")
        if entry.layer_source:
            typer.echo(f"Layers {', '.join(map(str, entry.layers))}: {entry.layer_source}")
        table(("module", "|dW|/|W|"), [(name, f"{norm:.4f}") for name, norm in entry.norms.items()])
        if entry.locality:
            seen = entry.locality
            typer.echo(f"Other answers as in the unedited model: {seen.before:.0%} before, {seen.after:.0%} after")
        for warning in entry.warnings:
            typer.echo(f"Warning: {warning}")


@app.command()
@command
def redo(entry_id: EntryId, json_: Json = False, data: Data = None, model: Model = None, device: Device = None) -> None:
    """Bring an undone entry back."""
    with opened(data=data, model=model, device=device) as service:
        _told(service.weights.redo(entry_id), json_)


@app.command()
@command
def export(
    path: Annotated[Path, typer.Argument(help="Folder to write to.")],
    form: Annotated[str, typer.Option("--format", help="peft, merged or safetensors.")] = "peft",
    entry: Annotated[
        list[int] | None, typer.Option("--entry", help="An entry; repeat it. Default: those that are on.")
    ] = None,
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
) -> None:
    """Write entries as a PEFT adapter, a merged checkpoint, or plain factors."""
    with opened(data=data, model=model, device=device) as service:
        made = service.weights.export(path, entry_ids=entry or None, format=form)
        emit({"path": str(made), "format": form}) if json_ else typer.echo(f"Written to {made}.")


@app.command("import")
@command
def import_(
    path: Annotated[Path, typer.Argument(help="A .safetensors file of 'weights export', or a PEFT adapter's folder.")],
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
) -> None:
    """Lay a change from elsewhere over the model, as an entry of its own."""
    with opened(data=data, model=model, device=device) as service:
        entry = _desk(service).bring_in(path)
        if json_:
            emit(entry)
        else:
            typer.echo(f"#{entry.id} imported from {path}: layers {', '.join(map(str, entry.layers))}")


@app.command()
@command
def consolidate(
    fact: Annotated[
        list[int] | None, typer.Option("--fact", help="A stored fact; repeat it. Default: those due.")
    ] = None,
    at_least: Annotated[int, typer.Option(min=1, help="Due: served by memory so many times.")] = 3,
    most: Annotated[int, typer.Option(min=1, help="Facts in one batch.")] = 100,
    method: Annotated[str, typer.Option("--method", help="memit, alphaedit or emmet.")] = "memit",
    efficacy: Annotated[float, typer.Option(min=0, max=1, help="Least share of its own probes.")] = 0.9,
    drop: Annotated[float, typer.Option(min=0, max=1, help="Largest loss of other answers.")] = 0.1,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list the facts that are due.")] = False,
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    namespace: Namespace = None,
) -> None:
    """Write the facts that memory serves often into the weights; kept only if they prove good there."""
    from app.consolidation_desk import ConsolidationDesk

    with opened(data=data, model=model, device=device, namespace=namespace) as service:
        desk = ConsolidationDesk(service.engine)
        if dry_run:
            due = desk.due(at_least=at_least, most=most)
            times = desk.served.times(namespace=service.settings.namespace)
            rows = [(item.id, times.get(item.id, 0), item.statement) for item in due]
            if json_:
                emit({"due": [{"id": row[0], "times": row[1], "statement": row[2]} for row in rows]})
            elif rows:
                table(("id", "served", "fact"), rows)
            else:
                typer.echo(f"No fact was served {at_least} times.")
            return
        from evaluation.consolidation import Limits

        found = desk.run(
            fact_ids=fact or [],
            at_least=at_least,
            most=most,
            method=method,
            limits=Limits(efficacy=efficacy, drop=drop),
            progress=progress_to_stderr(json_),
        )
        if json_:
            emit(found.to_json())
            return
        typer.echo(_verdict(found))
        for edit in found.failed:
            typer.echo(f"  did not hold: {edit.statement}")


def _verdict(found: Any) -> str:
    count = len(found.written)
    rates = "" if found.efficacy is None else f", own probes {found.efficacy:.0%}"
    if found.locality is not None:
        rates += f", other answers {found.locality.before:.0%} -> {found.locality.after:.0%}"
    left = f" {len(found.known)} were in the weights already." if found.known else ""
    if found.kept:
        return f"{count} facts are in the weights now as #{found.entry}{rates}. They stay in memory too.{left}"
    return f"Undone, the weights are as before: {' '.join(found.reasons)}{rates and f' ({count} facts{rates})'}{left}"
