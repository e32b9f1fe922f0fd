"""The command line; the parts are told in the package."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

import benchmarks.editors
from benchmarks.editors.cases import load
from benchmarks.editors.moments import moments
from benchmarks.editors.quality import table
from benchmarks.editors.sequence import sequence
from benchmarks.editors.speed import cell, speed
from editors.registry import available
from knowledge.errors import PalimpsestError
from language_model.model import LanguageModel


def parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--model", default="bundled", help="a model, or gpt2-size")
    shared.add_argument("--seed", type=int, default=0)
    shared.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the editors")
    shared.add_argument("--keep", type=Path, help="a file: rows in it are not measured again")
    shared.add_argument("--limit", type=float, default=0, help="seconds for a method in table and sequence; 0: none")
    shared.add_argument("--json", action="store_true")
    shared.add_argument("--threads", type=int, default=0)
    shared.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "palimpsest-benchmarks", help="second moments"
    )
    top = argparse.ArgumentParser(
        description=benchmarks.editors.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = top.add_subparsers(required=True)

    def part(name: str, run: Callable[[LanguageModel, argparse.Namespace], None]) -> argparse.ArgumentParser:
        made = parts.add_parser(name, parents=[shared], help=run.__doc__)
        made.set_defaults(run=run)
        return made

    made = part("table", table)
    made.add_argument("--facts", type=int, default=100)
    made.add_argument("--methods", nargs="*")
    made.add_argument("--kinds", action="store_true", help="locality by kind as well")
    made.add_argument("--together", action="store_true", help="all facts in one call")
    made = part("speed", speed)
    made.add_argument("--completions", action="store_true", help="no questions: one form a fact, as in the papers")
    made.add_argument("--sizes", type=int, nargs="+", default=[1, 10, 100])
    made.add_argument("--methods", nargs="*", choices=list(available()))
    made.add_argument("--plain-most", type=int, default=100, help="the plain way is not run on more edits")
    made.add_argument("--peer", type=Path, help="a checkout of EasyEdit or memit, in place of the plain way")
    made = part("cell", cell)
    made.add_argument("--completions", action="store_true")
    made.add_argument("--method", required=True, choices=list(available()))
    made.add_argument("--size", type=int, required=True)
    made.add_argument("--way", required=True, choices=["ours", "plain"])
    made = part("moments", moments)
    made.add_argument("--tokens", type=int, nargs="+", default=[1_000, 3_000, 10_000, 30_000, 100_000])
    made.add_argument("--facts", type=int, default=50)
    made.add_argument("--method", default="r-rome")
    made.add_argument("--plot", type=Path)
    made = part("sequence", sequence)
    made.add_argument("--edits", type=int, default=1000)
    made.add_argument("--batch", type=int, default=1)
    made.add_argument("--every", type=int, default=100, help="edits between two measurements")
    made.add_argument("--wordings", type=int, default=100, help="facts that are also asked in other wordings")
    made.add_argument("--locality", type=int, default=100, help="questions of the locality sample")
    made.add_argument("--methods", nargs="*")
    made.add_argument("--plot", type=Path)
    return top


def main() -> None:
    options = parser().parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        options.run(load(options.model), options)
    except PalimpsestError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
