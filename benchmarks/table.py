"""Printing measurements: a Markdown table, or JSON, with the machine and the date they hold for."""

from __future__ import annotations

import json
import os
import platform
import random
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import torch


def machine() -> str:
    """The machine class, without its name: cores, architecture with what PyTorch uses of it, Python."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    kind = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}"
    return f"{cores} cores, {kind}, Python {platform.python_version()}"


def show(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, as_json: bool = False, note: str = ""
) -> None:
    """Prints a table with its command line, machine and date."""
    command = "python -m " + " ".join([module_name(), *sys.argv[1:]])
    date = datetime.now(UTC).date().isoformat()
    if as_json:
        table = [dict(zip(columns, row, strict=True)) for row in rows]
        print(json.dumps({"title": title, "command": command, "machine": machine(), "date": date, "rows": table}))
        return
    print(f"\n### {title}\n\n`{command}` · {machine()} · {date}{' · ' + note if note else ''}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(map(str, row)) + " |")
    sys.stdout.flush()


def module_name() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec else sys.argv[0]


def rate(flags: Sequence[float]) -> str:
    """A share, of flags or shares, with its bootstrap 95 % interval, in per cent: "97.2 (94.4-99.3)"."""
    if not flags:
        return "-"
    rng = random.Random(0)
    n = len(flags)
    draws = sorted(sum(rng.choices(flags, k=n)) / n for _ in range(1000))
    return f"{100 * sum(flags) / n:.1f} ({100 * draws[25]:.1f}-{100 * draws[974]:.1f})"


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
