"""What every command shares: options, opening the service, printing, and how it fails.

Exit codes: 0 done, 1 nothing found, 2 anything that the user can mend (message on stderr; with ``--json`` also
``{"error": ...}`` on stdout). Everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from app.errors import NothingFound
from app.settings import Settings, load_settings
from app.views import as_json
from knowledge.errors import InvalidInput, PalimpsestError

F = TypeVar("F", bound=Callable[..., Any])

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
Data = Annotated[Path | None, typer.Option("--data", help="Folder where the state lives.", show_default=False)]
Model = Annotated[str | None, typer.Option("--model", help="'bundled', or a name or path.", show_default=False)]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, mps.", show_default=False)]
Namespace = Annotated[str | None, typer.Option("--namespace", help="Which set of facts.", show_default=False)]


def make_service(settings: Settings) -> Any:
    """The service of a command; the tests put a fake in its place."""
    from app.service import Service

    return Service(settings)


@contextmanager
def opened(**flags: Any) -> Iterator[Any]:
    """The service for a command's flags, closed at the end."""
    settings = load_settings(**flags)
    set_up(settings)
    service = make_service(settings)
    try:
        yield service
    finally:
        service.close()


def set_up(settings: Settings) -> None:
    """Logging and the switches that other libraries read from the environment; call before they are imported.

    Raises:
        InvalidInput: the data folder is a file.
    """
    if settings.data.exists() and not settings.data.is_dir():
        raise InvalidInput(
            f"The data folder {settings.data} is a file. Give a folder with --data or PALIMPSEST_DATA; "
            "one that is missing is made."
        )
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    for name, value in {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_VERBOSITY": "error",  # its five retries would be told twice each; our own error says what failed
        "TRANSFORMERS_VERBOSITY": "error",
        "TOKENIZERS_PARALLELISM": "false",
    }.items():
        os.environ.setdefault(name, value)


def command(fn: F) -> F:
    """Turns what the user can mend into a message and an exit code: a :class:`PalimpsestError`, a file or a database
    that cannot be used."""

    @functools.wraps(fn)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except PalimpsestError as error:
            _tell(str(error), kwargs)
            raise typer.Exit(1 if isinstance(error, NothingFound) else 2) from error
        except OSError as error:
            if isinstance(error, BrokenPipeError):  # "... | head" is no error
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115
                raise typer.Exit(0) from None
            _tell(f"{_about(error)} Check the path, its permissions and the space on the disk.", kwargs)
            raise typer.Exit(2) from error
        except KeyboardInterrupt:
            _tell("Stopped.", kwargs)
            raise typer.Exit(130) from None
        except Exception as error:
            if not type(error).__module__.startswith("sqlalchemy."):
                raise
            _tell(f"The database cannot be used: {_about(error)} Check PALIMPSEST_DATABASE and --data.", kwargs)
            raise typer.Exit(2) from error

    return wrapped  # type: ignore[return-value]


def _tell(message: str, options: dict[str, Any]) -> None:
    typer.echo(f"Error: {message}", err=True)
    if options.get("json_"):
        emit({"error": message})


def _about(error: BaseException) -> str:
    """The first line of an error of another library, as a sentence."""
    text = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return text if text.endswith(".") else f"{text}."


def emit(value: Any) -> None:
    """One JSON document on stdout."""
    typer.echo(json.dumps(as_json(value), ensure_ascii=False, indent=2))


def line(value: Any) -> None:
    """One JSON document on one line, for streams of them."""
    typer.echo(json.dumps(as_json(value), ensure_ascii=False))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Aligned columns, the last one as long as it likes."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [list(head), *cells]) for i in range(len(head))]
    for row in [list(head), *cells]:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@contextmanager
def busy(what: str, quiet: bool = False) -> Iterator[None]:
    """Says on a terminal what is being waited for, and wipes it afterwards."""
    shown = not quiet and sys.stderr.isatty()
    if shown:
        typer.echo(f"{what} ...", err=True, nl=False)
    try:
        yield
    finally:
        if shown:
            typer.echo("\r\x1b[K", err=True, nl=False)


def progress_to_stderr(quiet: bool = False) -> Callable[[float, str], None]:
    """A progress line that is rewritten in place, on a terminal only."""
    shown = not quiet and sys.stderr.isatty()

    def report(share: float, what: str) -> None:
        if shown:
            end = "\n" if share >= 1 else ""
            typer.echo(f"\r\x1b[K{share:4.0%} {what}{end}", err=True, nl=False)

    return report
