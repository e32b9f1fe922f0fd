"""``weights apply|list|on|off|undo|redo|export|methods``: facts written into the parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.common import Data, Device, Json, Model, Namespace, command, emit, opened, progress_to_stderr, table
from app.settings import load_settings
from app.views import EntryView

app = typer.Typer(help="Weight edits and their ledger.", no_args_is_help=True)

EntryId = Annotated[int, typer.Argument(help="Number of the entry.")]


@app.command()
@command
def apply(
    sentence: Annotated[str | None, typer.Argument(help="The fact as one sentence.")] = None,
    fact: Annotated[list[int] | None, typer.Option("--fact", help="or a stored fact; repeat it for a batch.")] = None,
    method: Annotated[str | None, typer.Option("--method", help="The editor; see 'weights methods'.")] = None,
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    namespace: Namespace = None,
) -> None:
    """Write a fact into the weights. The base weights stay as they are; the change lies on top."""
    chosen = method or load_settings().method
    with opened(data=data, model=model, device=device, namespace=namespace) as service:
        entry = service.weights.apply(chosen, text=sentence, fact_ids=fact or [], progress=progress_to_stderr(json_))
        _told(entry, json_)


def _told(entry: EntryView, json_: bool) -> None:
    if json_:
        emit(entry)
        return
    state = "undone" if entry.undone else "on" if entry.active else "off"
    typer.echo(f"#{entry.id} {entry.method} {state}: {' '.join(entry.facts)}")


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
            typer.echo("No weight edits yet.")
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
                        " ".join(entry.facts[:3]) + ("" if entry.fits else "  (made for another model)"),
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
        table(("name", "title", "arXiv", "what it does"), [(m.name, m.title, m.paper, m.summary) for m in found])


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
def undo(entry_id: EntryId, json_: Json = False, data: Data = None, model: Model = None, device: Device = None) -> None:
    """Undo an entry, whatever came after it."""
    with opened(data=data, model=model, device=device) as service:
        _told(service.weights.undo(entry_id), json_)


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
