"""``facts add|list|search|edit|remove|purge|alias|undo|redo|history|import|export``: the edit memory.

None of them loads the language model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.common import Data, Json, Namespace, command, emit, opened, progress_to_stderr, table
from app.errors import NothingFound
from app.views import AddOutcome, EventView, FactView
from knowledge.errors import InvalidInput, UnknownName

app = typer.Typer(help="Facts in the edit memory.", no_args_is_help=True)

FactId = Annotated[int, typer.Argument(help="Number of the fact.")]


@app.command()
@command
def add(
    sentence: Annotated[str | None, typer.Argument(help="The fact as one sentence.")] = None,
    subject: Annotated[str | None, typer.Option("--subject", help="or in parts: the subject,")] = None,
    relation: Annotated[str | None, typer.Option("--relation", help="the relation,")] = None,
    object_: Annotated[str | None, typer.Option("--object", help="and the object.")] = None,
    keep_both: Annotated[bool, typer.Option("--keep-both", help="Leave a contradicting fact in force.")] = False,
    similar: Annotated[
        str, typer.Option("--if-similar", help="A very similar fact is there: keep both, ask (fails), or replace it.")
    ] = "keep",
    valid_from: Annotated[str | None, typer.Option("--valid-from", help="Since when it holds: 2026-01-31.")] = None,
    valid_to: Annotated[str | None, typer.Option("--valid-to", help="Until when.")] = None,
    source: Annotated[str, typer.Option("--source", help="Where the fact comes from.")] = "user",
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """Add a fact. What it contradicts is superseded and kept in the history."""
    if not sentence and not (subject and object_):
        raise InvalidInput(
            'Give a sentence ("The Eiffel Tower is located in Rome.") or --subject, --relation and --object.'
        )
    if similar not in ("keep", "ask", "replace"):
        raise UnknownName("choice for --if-similar", similar, ["keep", "ask", "replace"])
    with opened(data=data, namespace=namespace) as service:
        outcome = service.facts.add(
            sentence, subject=subject, relation=relation, object=object_, keep_both=keep_both, source=source,
            similar=similar, valid_from=valid_from, valid_to=valid_to,
        )  # fmt: skip
        _told(outcome, json_)


def _told(outcome: AddOutcome, json_: bool) -> None:
    if json_:
        emit(outcome)
    elif outcome.duplicate:
        typer.echo(f"#{outcome.fact.id} says so already: {outcome.fact.statement}")
    else:
        old = f"  (was: {outcome.superseded.statement})" if outcome.superseded else ""
        typer.echo(f"#{outcome.fact.id} {outcome.fact.statement}{old}")


@app.command("list")
@command
def list_(
    contains: Annotated[str, typer.Option("--contains", help="Only facts with this text.")] = "",
    past: Annotated[bool, typer.Option("--all", help="Also those no longer in force.")] = False,
    page: Annotated[int, typer.Option("--page", min=1, help="Which page.")] = 1,
    size: Annotated[int, typer.Option("--size", min=1, max=10_000, help="Facts on a page.")] = 50,
    as_of: Annotated[str | None, typer.Option("--as-of", help="What was in force then: 2026-01-31.")] = None,
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """List facts, newest first."""
    with opened(data=data, namespace=namespace) as service:
        found = service.facts.page(contains, include_past=past, page=page, size=size, as_of=as_of)
        if json_:
            emit({"facts": found.rows, "total": found.total, "page": found.page, "pages": found.pages})
        elif not found.rows:
            gone = 0 if past or contains or as_of else service.facts.page("", include_past=True, size=1).total
            none = "No facts were in force then." if as_of else "No facts yet."
            none = f"No facts in force; {gone} taken back or ended (see --all)." if gone else none
            typer.echo(none if not contains else f"No fact contains {contains!r}.")
        else:
            _table(list(found.rows))
            typer.echo(
                f"{found.total} fact{'' if found.total == 1 else 's'}, page {found.page} of {found.pages}", err=True
            )


def _table(rows: list[FactView]) -> None:
    table(
        ("id", "status", "weights", "valid from", "to", "source", "by", "fact"),
        [
            (
                fact.id,
                fact.status,
                f"#{fact.in_weights}" if fact.in_weights else "-",
                (fact.valid_from or "")[:16],
                (fact.valid_to or "")[:16] or "-",
                fact.source,
                fact.actor,
                fact.statement,
            )
            for fact in rows
        ],
    )


@app.command()
@command
def search(
    query: Annotated[str, typer.Argument(help="What to look for.")],
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="At most so many.")] = 10,
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """Find the facts nearest in meaning."""
    with opened(data=data, namespace=namespace) as service:
        found = service.facts.search(query, limit=limit)
        if not found:
            raise NothingFound(f"No fact comes near {query!r}.")
        if json_:
            emit({"hits": [{"score": score, "fact": fact} for fact, score in found]})
        else:
            table(("score", "id", "fact"), [(f"{score:.2f}", fact.id, fact.statement) for fact, score in found])


@app.command()
@command
def edit(
    fact_id: FactId,
    object_: Annotated[str, typer.Option("--object", help="The new object.")],
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """Overwrite a fact's object; the old fact stays in the history."""
    with opened(data=data, namespace=namespace) as service:
        _told(service.facts.edit(fact_id, object=object_), json_)


@app.command()
@command
def remove(
    fact_id: FactId,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the history.")] = None,
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """Take a fact out of force; undo brings it back."""
    with opened(data=data, namespace=namespace) as service:
        gone = service.facts.remove(fact_id, reason=reason)
        emit(gone) if json_ else typer.echo(f"#{gone.id} is out of force: {gone.statement}")


@app.command()
@command
def purge(
    fact_id: FactId,
    yes: Annotated[bool, typer.Option("--yes", help="Needed: nothing brings it back.")] = False,
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """Delete a fact and its history for good."""
    if not yes:
        raise InvalidInput("A purge deletes the fact and its history for good. Say --yes, or use 'facts remove'.")
    with opened(data=data, namespace=namespace) as service:
        gone = service.facts.purge(fact_id)
        emit(gone) if json_ else typer.echo(f"#{gone.id} is deleted: {gone.statement}")


@app.command()
@command
def alias(
    name: Annotated[str, typer.Argument(help="The other name.")],
    subject: Annotated[str, typer.Argument(help="What it stands for.")],
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """Give a subject another name."""
    with opened(data=data, namespace=namespace) as service:
        found = service.facts.add_alias(name, subject)
        emit({"subject": subject, "aliases": found}) if json_ else typer.echo(f"{subject}: {', '.join(found)}")


Action = Annotated[int | None, typer.Argument(help="Number of a change in the history; the last one by default.")]


@app.command()
@command
def undo(action: Action = None, json_: Json = False, data: Data = None, namespace: Namespace = None) -> None:
    """Take a change back."""
    with opened(data=data, namespace=namespace) as service:
        _turned("Undone", service.facts.undo(action), json_)


@app.command()
@command
def redo(action: Action = None, json_: Json = False, data: Data = None, namespace: Namespace = None) -> None:
    """Make an undone change again."""
    with opened(data=data, namespace=namespace) as service:
        _turned("Done again", service.facts.redo(action), json_)


def _turned(word: str, event: EventView, json_: bool) -> None:
    emit(event) if json_ else typer.echo(f"{word}: {event.op} {event.text}")


@app.command()
@command
def history(
    fact_id: Annotated[
        int | None, typer.Argument(help="Number of a fact; without it, the latest changes of all.")
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many.")] = 50,
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """What happened to a fact, or lately to all."""
    with opened(data=data, namespace=namespace) as service:
        found = service.facts.history(fact_id, limit=limit)
        if json_:
            emit({"events": found})
        else:
            table(
                ("change", "when", "what", "by", "fact"),
                [(event.seq or "", event.at[:16], event.op, event.actor, event.text) for event in found],
            )


@app.command("import")
@command
def import_(
    path: Annotated[Path, typer.Argument(help="A .csv, .json or .jsonl file.")],
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """Import facts; bad rows are reported and never stop the good ones."""
    with opened(data=data, namespace=namespace) as service:
        report = service.facts.import_file(path, progress=progress_to_stderr(json_))
        if json_:
            emit(report)
            return
        for row in report.rows:
            if row.status in ("failed", "skipped"):
                typer.echo(f"row {row.line} {row.status}: {row.text} ({row.why})", err=True)
        typer.echo(f"{report.added} added, {report.skipped} left out.")


@app.command()
@command
def export(
    path: Annotated[Path, typer.Argument(help="A .csv, .json or .jsonl file to write.")],
    past: Annotated[bool, typer.Option("--all", help="Also facts no longer in force.")] = False,
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """Export facts; import reads the file again."""
    with opened(data=data, namespace=namespace) as service:
        number = service.facts.export_file(path, include_past=past)
        emit({"path": str(path), "facts": number}) if json_ else typer.echo(f"{number} facts written to {path}.")
