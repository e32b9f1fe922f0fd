"""``train``: makes what the program ships. A group, so that later trainings are one function each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.common import Data, Device, Json, Model, command, emit, progress_to_stderr, set_up, table
from app.settings import Settings, load_settings
from knowledge.errors import InvalidInput

app = typer.Typer(help="Train what the program ships.", no_args_is_help=True)


@app.command("bundled")
@command
def bundled(
    folder: Annotated[Path, typer.Option(help="Run folder: checkpoints and log; an earlier run there goes on.")] = Path(
        "runs/bundled"
    ),
    preset: Annotated[str, typer.Option(help="cpu (9 M parameters) or gpu (34 M).")] = "cpu",
    minutes: Annotated[float | None, typer.Option(help="Train this long instead of the preset's token count.")] = None,
    start_from: Annotated[Path | None, typer.Option(help="Folder with weights to begin with.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and data.")] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; chosen by itself when left out.")] = None,
    ship: Annotated[bool, typer.Option("--ship", help="Copy the finished model over the shipped one.")] = False,
    report: Annotated[
        bool, typer.Option("--report", help="Measure the shipped model instead of training one.")
    ] = False,
    model: Annotated[str, typer.Option(help="With --report: the model to measure.")] = "bundled",
    cases: Annotated[int, typer.Option(min=20, help="With --report: cases a row.")] = 500,
    misses: Annotated[int, typer.Option(min=0, help="With --report: failed cases to show a row.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="With --report: print JSON.")] = False,
) -> None:
    """Train the bundled model (about 80 minutes on 2 cores), or measure it with --report."""
    set_up(load_settings(log_level="warning"))
    if report:
        _report(model, cases, misses, as_json)
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from language_model.bundled.train import WEIGHTS, Trainer

    trainer = Trainer(folder, preset, minutes=minutes, seed=seed, device=device, start_from=start_from)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:.1f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as bar:
        task = bar.add_task("training", total=1.0)

        def show(done: float, entry: dict[str, Any]) -> None:
            bar.update(
                task, completed=done, description=f"loss {entry['loss']:.3f}, {entry['tokens'] / 1e6:.1f} M tokens"
            )
            if "held_out" in entry:
                bar.console.print(f"{entry['tokens'] / 1e6:6.1f} M tokens  {entry['held_out']}")

        trainer.run(on_progress=show)
    typer.echo(f"The model is in {folder / 'model'}.")
    if ship:
        for file in (folder / "model").iterdir():
            shutil.copy2(file, WEIGHTS / file.name)
        shutil.copy2(folder / "log.jsonl", WEIGHTS / "training_log.jsonl")
        typer.echo(f"Copied to {WEIGHTS}. Measure it with: python -m app train bundled --report")


Encoder = Annotated[str | None, typer.Option(help="Sentence encoder; that of the settings when left out.")]
Output = Annotated[
    Path | None, typer.Option("--output", help="Write it here, not over the shipped one.", show_default=False)
]


def _steps(json_: bool) -> Callable[[str, int, int], None]:
    """Progress as the memory's trainings tell it: what, how many done, of how many."""
    tell = progress_to_stderr(json_)
    return lambda what, done, total: tell(done / max(1, total), what)


@app.command("average")
@command
def average(
    parts: Annotated[list[str], typer.Argument(help="Folders of models with their weights: runs/a/model=.4 ...")],
    output: Annotated[Path, typer.Option(help="Folder to write the mean to.")],
) -> None:
    """Write the weighted mean of models of one training, which is often better than each."""
    from language_model.bundled.averaging import average as mean

    weights: dict[Path, float] = {}
    for part in parts:
        folder, _, weight = part.rpartition("=")
        try:
            weights[Path(folder or part)] = float(weight) if folder else 1.0
        except ValueError:
            raise InvalidInput(f"{part!r} is not a folder and a weight, as in runs/a/model=.4.") from None
    typer.echo(f"The mean of {len(weights)} models is in {mean(weights, output)}.")


@app.command("gate")
@command
def gate(
    encoder: Encoder = None,
    facts: Annotated[int, typer.Option(min=50, help="Facts in memory while the threshold is measured.")] = 400,
    draws: Annotated[int, typer.Option(min=1, help="Draws of that many facts; one threshold for all of them.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of pairs, network and draws.")] = 0,
    calibrate_only: Annotated[bool, typer.Option("--calibrate-only", help="Keep the head, measure again.")] = False,
    json_: Json = False,
) -> None:
    """Train the gate's scope head for an encoder and measure its threshold (minutes on a CPU)."""
    settings = load_settings(encoder=encoder)
    set_up(settings)
    from knowledge.world import load_world, roundabout
    from memory.calibration import HARDEST, calibrate, save_calibration
    from memory.embedder import load_embedder
    from memory.scope import SHIPPED, ScopeHead
    from memory.scope_training import train
    from memory.vocabulary import bundled as vocabulary

    embedder, steps = load_embedder(settings.encoder), _steps(json_)
    if calibrate_only:
        head = ScopeHead.shipped(embedder)
    else:
        head = train(vocabulary().extended(roundabout()), embedder, seed=seed, progress=steps)
        head.save(SHIPPED)
    found = calibrate(load_world(), embedder, head=head, facts=facts, draws=draws, seed=seed, progress=steps)
    save_calibration(found, SHIPPED.parent)
    if json_:
        emit(found.to_json())
        return
    typer.echo(f"threshold {found.threshold}, on {found.measured_on}")
    table(
        ("questions", "called in scope", "n"), [(k, f"{v['rate']:.3f}", int(v["n"])) for k, v in found.by_kind.items()]
    )
    names = ("true_positive_rate", "false_positive_rate", HARDEST)
    table(
        ("seed", "in scope", "all negatives", HARDEST),
        [(seed + at, *(f"{row[name]:.3f}" for name in names)) for at, row in enumerate(found.by_draw)],
    )


@app.command("chains")
@command
def chains(
    encoder: Encoder = None,
    questions: Annotated[int, typer.Option(min=100, help="Questions to make of known wordings.")] = 24_000,
    seed: Annotated[int, typer.Option(help="Seed of the questions.")] = 0,
    output: Output = None,
    json_: Json = False,
) -> None:
    """Train the tagger that reads multi-hop questions for an encoder (minutes)."""
    settings = load_settings(encoder=encoder)
    set_up(settings)
    import random

    from knowledge.world import load_world, roundabout
    from language_model.bundled.draw import wordings
    from memory.embedder import load_embedder
    from memory.tagger import SHIPPED
    from memory.tagger_training import Questions, train
    from memory.vocabulary import bundled

    embedder, path = load_embedder(settings.encoder), output or SHIPPED
    composites, frames = wordings("composites"), wordings("frames")
    drawn = Questions(bundled(), load_world(), roundabout(), composites, frames, random.Random(seed))
    train(drawn, embedder, count=questions, seed=seed, progress=_steps(json_)).save(path)
    if json_:
        emit({"path": str(path), "encoder": embedder.id})
        return
    typer.echo(f"The tagger is in {path}.")


@app.command("serac")
@command
def serac(
    encoder: Encoder = None,
    each: Annotated[int, typer.Option(min=1, help="Training edits a relation.")] = 12,
    held_out: Annotated[int, typer.Option("--held-out", min=0, help="Measured edits a relation; 0: none.")] = 6,
    seed: Annotated[int, typer.Option(help="Seed of the training edits.")] = 0,
    output: Output = None,
    json_: Json = False,
) -> None:
    """Train SERAC's counterfactual model for an encoder (under a minute), and measure it on wordings kept out."""
    settings = load_settings(encoder=encoder)
    set_up(settings)
    from knowledge.world import load_world
    from memory.counterfactual import SHIPPED, Counterfactual
    from memory.counterfactual_training import measure, train
    from memory.embedder import load_embedder

    world, embedder, path = load_world(), load_embedder(settings.encoder), output or SHIPPED
    train(world, embedder, seed=seed, each=each, progress=_steps(json_)).save(path)
    found = measure(Counterfactual.load(path, embedder), world, each=held_out) if held_out else {}
    if json_:
        emit({"path": str(path), "held_out": {name: {"rate": right, "n": n} for name, (right, n) in found.items()}})
        return
    typer.echo(f"The counterfactual model is in {path}.")
    if found:
        table(("answered by", "right", "n"), [(name, f"{right:.3f}", n) for name, (right, n) in found.items()])


Minutes = Annotated[float, typer.Option(min=0.05, help="How long to train in all, earlier runs included.")]
Lessons_ = Annotated[int, typer.Option("--lessons", min=1, help="Edits in a step.")]
HeldOut_ = Annotated[int, typer.Option("--held-out", min=0, help="Facts to measure on afterwards; 0: none.")]
RunFolder = Annotated[
    Path | None, typer.Option("--folder", help="State of the training; an earlier one goes on.", show_default=False)
]
StartFrom = Annotated[
    Path | None,
    typer.Option("--start-from", help="A network to begin with, trained for a like model.", show_default=False),
]
Ship = Annotated[bool, typer.Option("--ship", help="Keep the network with the program, not in the data folder.")]


@app.command("mend")
@command
def mend(
    model: Model = None,
    minutes: Minutes = 5.0,
    lessons: Lessons_ = 8,
    held_out: HeldOut_ = 100,
    folder: RunFolder = None,
    start_from: StartFrom = None,
    ship: Ship = False,
    seed: Annotated[int, typer.Option(help="Seed of network and lessons.")] = 0,
    json_: Json = False,
    data: Data = None,
    device: Device = None,
) -> None:
    """Train MEND's editing network for a model (minutes on 2 cores), and measure it on facts kept out."""
    settings = load_settings(model=model, data=data, device=device)
    _hypernetwork("mend", settings, minutes, lessons, held_out, folder, start_from, ship, seed, json_)


@app.command("ke")
@command
def ke(
    model: Model = None,
    minutes: Minutes = 5.0,
    lessons: Lessons_ = 8,
    held_out: HeldOut_ = 100,
    folder: RunFolder = None,
    start_from: StartFrom = None,
    ship: Ship = False,
    seed: Annotated[int, typer.Option(help="Seed of network and lessons.")] = 0,
    json_: Json = False,
    data: Data = None,
    device: Device = None,
) -> None:
    """Train KE's network for a model (minutes on 2 cores), and measure it on facts kept out."""
    settings = load_settings(model=model, data=data, device=device)
    _hypernetwork("ke", settings, minutes, lessons, held_out, folder, start_from, ship, seed, json_)


def _hypernetwork(
    kind: str,
    settings: Settings,
    minutes: float,
    lessons: int,
    held_out: int,
    folder: Path | None,
    start_from: Path | None,
    ship: bool,
    seed: int,
    json_: bool,
) -> None:
    set_up(settings)
    import torch

    from editors.hypernetwork_data import Lessons
    from editors.hypernetwork_training import HyperTrainer, TrainSettings, measure
    from editors.hypernetworks import TRAINED, Hypernetwork, go_on_from, read_network, save_network
    from editors.ke import KeNet
    from editors.mend import MendNet
    from knowledge.world import load_world
    from language_model.model import LanguageModel

    if settings.threads:
        torch.set_num_threads(settings.threads)
    lm = LanguageModel.load(settings.model, device=settings.device, dtype=settings.dtype)
    world, kept = load_world(), settings.data / "statistics"
    net: Hypernetwork = MendNet.for_model(lm, seed=seed) if kind == "mend" else KeNet.for_model(lm, seed=seed)
    if start_from is not None:
        go_on_from(net, start_from, lm)
    options = TrainSettings(lessons=lessons, seed=seed)
    trainer = HyperTrainer(lm, net, Lessons(world, seed=seed), folder or kept / "training", options)
    if start_from is not None and trainer.step:
        raise InvalidInput(
            f"{kind.upper()} for this model is being trained in {trainer.folder} already, and would go on from there. "
            "Leave out --start-from, or name another --folder."
        )
    trainer.run(minutes, progress=progress_to_stderr(json_))
    notes = {"steps": trainer.step, "lessons": lessons, "minutes": round(trainer.seconds / 60, 2)}
    path = save_network(net, lm, TRAINED if ship else kept, notes)
    trained, asked = read_network(type(net), path, lm), Lessons(world, held_out=True, seed=seed)
    figures = [measure(lm, trained, asked, count=held_out, together=size) for size in (1, 10)] if held_out else []
    if json_:
        emit({"path": str(path), **notes, "held_out": [figure.to_json() for figure in figures]})
        return
    typer.echo(f"{trainer.step} steps in {trainer.seconds / 60:.1f} minutes. The network is in {path}.")
    if figures:
        table(
            ("edits at once", "n", "efficacy", "generality (unseen wordings)", "locality"),
            [(f.together, f.edits, *(f"{x:.3f}" for x in (f.efficacy, f.generality, f.locality))) for f in figures],
        )


def _report(model: str, cases: int, misses: int, as_json: bool) -> None:
    from tqdm import tqdm

    from language_model.bundled.report import Report
    from language_model.bundled.report import table as report_table
    from language_model.model import LanguageModel

    if cases < 20:
        raise InvalidInput("A report of fewer than 20 cases a row says nothing.")
    measured = Report(LanguageModel.load(model), n=cases)
    with tqdm(total=100, unit="%", disable=as_json, bar_format="{l_bar}{bar}| {elapsed}<{remaining} {postfix}") as bar:

        def show_row(done: float, name: str) -> None:
            bar.set_postfix_str(name)
            bar.update(round(done * 100) - bar.n)

        figures = measured.run(show_row)
    if as_json:
        rows = [{"name": f.name, "value": f.value, "target": f.target, "n": f.n, "met": f.met} for f in figures]
        typer.echo(json.dumps(rows, indent=1))
        return
    typer.echo(report_table(figures))
    for figure in figures:
        for miss in [m for m in measured.misses if m.row == figure.name][:misses]:
            typer.echo(f"[{miss.row}] {miss.prompt!r}: wanted {miss.wanted!r}, got {miss.given!r}")
