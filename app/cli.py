"""``python -m app``: the command line. Without a command it opens the chat.

python -m app                                          # the user interface on http://127.0.0.1:7860
python -m app ask "Where is the Eiffel Tower?" --json
python -m app facts add "The Eiffel Tower is located in Rome."
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import time
from typing import Annotated, Any

import typer

from app.commands import asking, comparing, facts, locate, training, weights
from app.commands.common import Data, Device, Json, Model, Namespace, command, emit, make_service, set_up, table
from app.errors import NotReady
from app.settings import PREFIX, describe, load_settings, markdown_table

app = typer.Typer(
    name="palimpsest",
    help="Chat with a language model whose facts can be written over.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)
app.add_typer(facts.app, name="facts")
app.add_typer(weights.app, name="weights")
app.add_typer(training.app, name="train")
for function in (
    asking.ask, asking.correct, asking.corrections, asking.route, comparing.compare, asking.models, locate.locate,
):  # fmt: skip
    app.command()(function)

Host = Annotated[str | None, typer.Option("--host", help="Address to serve on.", show_default=False)]
Port = Annotated[int | None, typer.Option("--port", help="Port to serve on.", show_default=False)]


@app.callback(invoke_without_command=True)
@command
def root(
    context: typer.Context,
    data: Data = None,
    model: Model = None,
    device: Device = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Chat with a language model whose facts can be written over."""
    flags = {"data": data, "model": model, "device": device, "host": host, "port": port}
    if context.invoked_subcommand is None:
        _serve(**flags)
        return
    for name, value in flags.items():  # "python -m app --data DIR ask ..." reaches the command like its own --data
        if value is not None:
            os.environ[PREFIX + name.upper()] = str(value)


@app.command()
@command
def chat(
    data: Data = None,
    model: Model = None,
    device: Device = None,
    namespace: Namespace = None,
    host: Host = None,
    port: Port = None,
) -> None:
    """Open the user interface (the default)."""
    _serve(data=data, model=model, device=device, namespace=namespace, host=host, port=port)


def _serve(**flags: Any) -> None:
    start = time.perf_counter()
    settings = load_settings(**flags)
    set_up(settings)
    settings.data.mkdir(parents=True, exist_ok=True)
    _check_address(settings.host, settings.port)  # at once, not after the page has been built
    service = make_service(settings)
    from app.ui.layout import build_blocks, serve

    blocks = build_blocks(service)
    try:
        url = serve(service, blocks, block=False)
    except OSError as error:
        raise _unusable(settings.host, settings.port, error) from error
    service.warm_up()  # not earlier: two threads that import side by side take longer than one after the other
    typer.echo(f"Palimpsest is on {url}  (up in {time.perf_counter() - start:.1f} s; Ctrl+C stops it)")
    if settings.host not in ("127.0.0.1", "localhost", "::1"):
        typer.echo(
            f"Note: {settings.host} is open to the network; anyone who reaches it can chat and edit facts.", err=True
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # "docker stop" ends like Ctrl+C
    try:
        blocks.block_thread()
    finally:
        service.close()


def _check_address(host: str, port: int) -> None:
    """Raises :class:`NotReady` where the server could not listen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # elsewhere this option would let two servers share a port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise _unusable(host, port, error) from error


def _unusable(host: str, port: int, error: OSError) -> NotReady:
    why = "another program uses it already" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return NotReady(
        f"The address {host}:{port} cannot be used: {why}. Choose another port with --port or PALIMPSEST_PORT, "
        "another host with --host or PALIMPSEST_HOST."
    )


@app.command()
@command
def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="As the table of the documentation.")] = False,
    json_: Json = False,
    data: Data = None,
) -> None:
    """All settings: variable, value now, default, meaning."""
    loaded = load_settings(data=data)
    rows = describe(loaded)
    if json_:
        emit({"settings": rows})
    elif markdown:
        typer.echo(markdown_table(loaded))
    else:
        table(("variable", "value", "meaning"), [(row["variable"], row["value"], row["meaning"]) for row in rows])


def main() -> None:
    """The entry point."""
    app()
