"""Pictures of the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def plot(path: Path, points: list[tuple[Any, ...]], x: str, names: tuple[str, ...], *, log: bool = False) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.5, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for column, name in enumerate(names, start=1):
        axis.plot([point[0] for point in points], [point[column] for point in points], marker="o", label=name)
    if log:
        axis.set_xscale("log")
    axis.set_xlabel(x)
    axis.set_ylim(0, 1.02)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=140)
