"""``locate``: at which layer a model holds its facts, by causal tracing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.common import Data, Device, Json, Model, command, emit, progress_to_stderr, set_up, table
from app.settings import load_settings
from knowledge.errors import InvalidInput

if TYPE_CHECKING:
    from knowledge.edit import Edit
    from language_model.model import LanguageModel


@command
def locate(
    facts: Annotated[Path | None, typer.Option("--facts", help="known_1000.json; default: the bundled world.")] = None,
    count: Annotated[int, typer.Option(min=1, help="Facts to trace, among those that the model knows.")] = 40,
    samples: Annotated[int, typer.Option(min=1, help="Draws of noise a fact.")] = 4,
    noise: Annotated[float, typer.Option(min=0.1, help="In standard deviations of the embeddings.")] = 3.0,
    plot: Annotated[Path | None, typer.Option("--plot", help="Picture to write (.png, .svg, .pdf).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of facts and noise.")] = 0,
    json_: Json = False,
    data: Data = None,
    model: Model = None,
    device: Device = None,
) -> None:
    """Find the layer to edit in a model that no paper has tuned; kept for this model, drawn with --plot."""
    settings = load_settings(data=data, model=model, device=device)
    set_up(settings)
    from editors.locate import facts_known, save_located, save_plot
    from editors.locate import locate as trace
    from editors.presets import canonical_name
    from knowledge.world import load_world
    from language_model.model import LanguageModel as Loaded

    lm = Loaded.load(settings.model, device=settings.device, dtype=settings.dtype)
    known = facts_known(lm, load_world(), count=count, seed=seed) if facts is None else _from_file(lm, facts, count)
    found = trace(lm, known, noise=noise, samples=samples, seed=seed, progress=progress_to_stderr(json_))
    kept = save_located(found, settings.data / "statistics")
    picture = save_plot(found, plot) if plot else None
    published = canonical_name(lm)
    used = _used(lm, kept.parent)
    if json_:
        emit(
            {
                **found.to_json(),
                "published": published,
                "kept": str(kept),
                "plot": str(picture) if picture else None,
                "editors": used,
            }
        )
        return
    at = [f"{row[1]:.3f}" for row in found.effects["feed-forward"]]
    table(("layer", "effect of the feed-forwards at the subject's last token"), list(enumerate(at)))
    typer.echo(f"P(answer): {found.clean:.2f} clean, {found.corrupted:.2f} corrupted, {found.facts} facts.")
    typer.echo(f"Edits of one layer: {found.layer}. Edits over several: {', '.join(map(str, found.layers))}.")
    for title, source in used.items():
        typer.echo(f"{title}: {source}")
    if published:
        typer.echo(f"This model has the shape of {published}; where a paper gives its layers, those count.")
    if picture:
        typer.echo(f"The plot is in {picture}.")


def _used(lm: LanguageModel, folder: Path) -> dict[str, str]:
    """What the editors that write at the subject make of the result, by title."""
    from editors.registry import get_editor
    from editors.statistics import MomentStore

    store = MomentStore(cache_dir=folder)
    editors = [get_editor(name, moments=store) for name in ("r-rome", "memit", "emmet", "alphaedit")]
    return {editor.title: editor.layer_source(lm) for editor in editors}


def _from_file(lm: LanguageModel, path: Path, count: int) -> list[Edit]:
    """The facts of a known_1000 file that the model completes rightly."""
    import json

    from evaluation.datasets.known import cases

    try:
        edits = [case.edits[0] for case in cases(json.loads(path.read_text(encoding="utf-8")))]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(
            f"{path} cannot be read as facts: {error}. Give known_1000.json of the ROME authors."
        ) from error
    scores = lm.score([edit.text for edit in edits], [edit.target_new for edit in edits])
    known = [edit for edit, score in zip(edits, scores, strict=True) if score.argmax_hits[0]]
    if not known:
        raise InvalidInput(f"The model knows none of the {len(edits)} facts of {path}.")
    return known[:count]
