"""``ask``, ``correct``, ``corrections``, ``route`` and ``models``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.common import (
    Data,
    Device,
    Json,
    Model,
    Namespace,
    busy,
    command,
    emit,
    line,
    opened,
    table,
)
from knowledge.errors import InvalidInput

_STRATEGIES = (  # written out, because reading the registry would import the memory at every start
    "auto lets the router choose; ike (fact in context), mello (subquestions), serac (small model answers), "
    "memprompt (corrections), graph_walk (chains of facts)."
)


@command
def ask(
    question: Annotated[str, typer.Argument(help="The question.")],
    mode: Annotated[str | None, typer.Option("--mode", help="auto, memory, weights, both or base.")] = None,
    strategy: Annotated[str | None, typer.Option("--strategy", help=_STRATEGIES)] = None,
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    namespace: Namespace = None,
) -> None:
    """Ask the model, with its edits; prints the answer and where it came from."""
    with opened(data=data, model=model, device=device, namespace=namespace) as service:
        with busy("loading the model and asking it", json_):
            found = service.ask(question, mode=mode, strategy=strategy)
        if json_:
            emit({key: value for key, value in found.items() if key != "route"})  # the documented shape; see ``route``
            return
        typer.echo(found["answer"])
        _show_steps(found["steps"])
        typer.echo(_where_from(found), err=True)


def _show_steps(steps: list[dict[str, Any]]) -> None:
    """A chain, a line a hop, on stderr: what was asked, the answer, and where it came from."""
    for number, step in enumerate(steps, start=1):
        if step.get("correction"):
            typer.echo(f"  you said: {step['correction']}", err=True)
            continue
        where = " ".join(part for part in (step.get("source", ""), step.get("verdict", "")) if part)
        typer.echo(f"  {number}. {step.get('subquestion', '')} {step.get('answer', '')}  ({where})", err=True)


def _where_from(found: dict[str, Any]) -> str:
    if found["source"] == "memory":
        facts = "; ".join(f"#{hit['fact_id']} {hit['text']}" for hit in found["hits"][:3])
        return f"(from memory by {found['strategy']}{f': {facts}' if facts else ''})"
    edits = len(found["weight_edits"])
    return f"(from the model, {edits} weight edit{'' if edits == 1 else 's'} on)"


@command
def correct(
    question: Annotated[str, typer.Argument(help="The question that was misunderstood.")],
    words: Annotated[str, typer.Argument(help='What was meant: "No, I meant the river."')],
    ask_again: Annotated[bool, typer.Option("--ask", help="Ask the question again with it.")] = False,
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    namespace: Namespace = None,
) -> None:
    """Keep what was meant by a question (MemPrompt); it helps the next question that asks the same."""
    with opened(data=data, model=model, device=device, namespace=namespace) as service:
        kept = service.corrections.add(question, words)
        found = service.ask(question) if ask_again else None
        if json_:
            emit({"correction": kept, **({"answer": found} if found else {})})
            return
        typer.echo(f"#{kept.id} kept for {kept.question!r}: {kept.text}")
        if found:
            typer.echo(found["answer"])
            typer.echo(_where_from(found), err=True)


@command
def corrections(
    remove: Annotated[int | None, typer.Option("--remove", help="Take this one back.")] = None,
    restore: Annotated[int | None, typer.Option("--restore", help="Put this one in force again.")] = None,
    past: Annotated[bool, typer.Option("--all", help="Also those taken back.")] = False,
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """What was meant by questions, in words."""
    if remove is not None and restore is not None:
        raise InvalidInput("Give --remove or --restore, one of the two.")
    with opened(data=data, namespace=namespace) as service:
        if remove is not None or restore is not None:
            desk = service.corrections
            changed = desk.remove(remove) if remove is not None else desk.restore(restore)
            emit(changed) if json_ else typer.echo(f"#{changed.id} {'in force' if changed.active else 'taken back'}")
            return
        found = service.corrections.list(include_past=past)
        if json_:
            emit({"corrections": found})
        elif not found:
            typer.echo("No corrections yet.")
        else:
            table(
                ("id", "state", "question", "meant"),
                [(item.id, "on" if item.active else "taken back", item.question, item.text) for item in found],
            )


@command
def route(
    question: Annotated[str | None, typer.Argument(help="The question.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help='JSONL of questions: strings or {"query": ...}.')] = None,
    json_: Json = False,
    data: Data = None,
    namespace: Namespace = None,
) -> None:
    """The gate's verdict only: would a stored fact answer this? Loads no language model.

    With --file, one JSON object a line, in the order of the file; a bad line gives {"error": ...} in its place.
    """
    if (question is None) == (file is None):
        raise InvalidInput("Give a question or --file, one of the two.")
    with opened(data=data, namespace=namespace) as service:
        if file is not None:
            for number, query in _queries(file):
                line(service.route(query) if query else {"error": f"Line {number} holds no question."})
            return
        found = service.route(question or "")
        if json_:
            emit(found)
            return
        verdict = "a stored fact applies" if found["in_scope"] else "no stored fact applies"
        typer.echo(f"{verdict} (score {found['score']:.2f}, threshold {found['threshold']:.2f})")
        for hit in found["hits"][:5]:
            typer.echo(f"  {hit['score']:.2f}  #{hit['fact_id']} {hit['text']}")


def _queries(path: Path) -> list[tuple[int, str]]:
    """(line number, question) of each line that is not blank; the question is empty where there is none."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} cannot be read: {error}. Give a JSONL file in UTF-8.") from error
    found = []
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        try:
            item = json.loads(text)
        except json.JSONDecodeError:
            item = None if text.lstrip().startswith(("{", "[", '"')) else text
        if isinstance(item, dict):
            item = item.get("query") or item.get("question")
        found.append((number, item.strip() if isinstance(item, str) else ""))
    return found


@command
def models(json_: Json = False, data: Data = None, model: Model = None, device: Device = None) -> None:
    """What is in use: language model, encoder, gate with its measured rates, data."""
    with opened(data=data, model=model, device=device) as service:
        found = service.models()
        if json_:
            emit(found)
            return
        for name, value in found.items():
            if isinstance(value, dict):
                typer.echo(f"{name}:")
                for inner, item in value.items():
                    typer.echo(f"  {inner}: {item}")
            else:
                typer.echo(f"{name}: {', '.join(value) if isinstance(value, list) else value}")
