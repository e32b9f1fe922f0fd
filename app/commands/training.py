"""``train``: makes what the program ships. A group, so that later trainings are one function each."""

from __future__ import annotations

from typing import Annotated

import typer

from app.commands.common import command, set_up
from app.settings import load_settings

app = typer.Typer(help="Train what the program ships.", no_args_is_help=True)

PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


@app.command("bundled", context_settings=PASS_ON)
@command
def bundled(
    context: typer.Context,
    report: Annotated[bool, typer.Option("--report", help="Measure the shipped model instead of training one.")] = False,
) -> None:
    """Train the bundled model, or measure it with --report; further options: 'train bundled --help'."""
    set_up(load_settings(log_level="info"))
    from language_model.bundled.__main__ import main

    raise typer.Exit(main([*(["--report"] if report else []), *context.args]) or 0)
