"""What MEND and KE share: the factors of a fine-tuning gradient, the change that a network makes of them, its file.

    rows = fact_rows(lm, edits)
    factors = gradient_factors(lm, rows, modules)                  # by module: x (tokens, in), delta (tokens, out)
    net = load_network(MendNet, lm, folders=[...])                 # refuses, with the command that trains one

The gradient of a loss with respect to a linear layer's weight is a sum over tokens of x delta^T, x being the layer's
input and delta the gradient at its output (2110.11309, section 3.1). So it never has to be written out.
"""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from editors.base import EditRefused
from editors.reads import target_losses
from editors.rewrites import Row, forms_of, tokenise
from knowledge.edit import Edit
from language_model.adapters import AdapterModule
from language_model.architectures import weight_in_out
from language_model.model import LanguageModel
from language_model.overlay import Adapter, Overlay

TRAINED = Path(__file__).parent / "trained"
"""Networks that come with the program."""

_FORMAT = "palimpsest-hypernetwork-1"


@dataclass(frozen=True)
class FactRow:
    """A tokenised rewrite, the edit it belongs to, and its share of that edit's loss."""

    row: Row
    owner: int
    weight: float


@dataclass(frozen=True)
class Factors:
    """A gradient as factors: sum over tokens of x delta^T, float32.

    Attributes:
        x: (tokens, in).
        delta: (tokens, out), gradient of the edit's own loss.
        owner: (tokens,) number of the edit.
    """

    x: Tensor
    delta: Tensor
    owner: Tensor


Changes = dict[str, tuple[Tensor, Tensor, Tensor]]
"""By module: u (columns, in), v (columns, out), owner (columns,); edit e adds sum over its columns of u v^T."""


BLOCKS = 3  # the last ones, which are edited


def edited_modules(lm: LanguageModel, blocks: int = BLOCKS) -> list[str]:
    """Both projections of the feed-forward in the last blocks (2110.11309, section 5)."""
    layers = range(max(0, lm.num_layers - blocks), lm.num_layers)
    return [name for layer in layers for name in (*lm.architecture.ups(layer), lm.architecture.down(layer))]


def shapes_of(lm: LanguageModel, modules: Iterable[str]) -> dict[str, tuple[int, int]]:
    """(in, out) of each module's weight."""
    return {name: tuple(weight_in_out(lm.module(name)).shape) for name in modules}  # type: ignore[misc]


def scales_of(lm: LanguageModel, modules: Iterable[str]) -> dict[str, float]:
    """Root mean square of each module's weight: what a change is measured by, so that no constant fits one model."""
    return {name: float(lm.module(name).weight.float().square().mean().sqrt()) for name in modules}  # type: ignore[operator]


def fact_rows(lm: LanguageModel, edits: Sequence[Edit]) -> list[FactRow]:
    """Each edit as it is asked: completion and chat form, equal shares."""
    found = []
    for number, edit in enumerate(edits):
        forms = forms_of(lm, edit)
        for form in forms:
            found.append(FactRow(tokenise(lm, form, form.target_ids(lm, edit.target_new)), number, 1 / len(forms)))
    return found


def gradient_factors(lm: LanguageModel, rows: Sequence[FactRow], modules: Sequence[str]) -> dict[str, Factors]:
    """Factors of d loss / d W for every edit and module, with the active overlay; nothing is trained or written to.

    Tokens whose gradient is nought (those after the last one that a loss reads) are left out.
    """
    batch = lm.batch([row.row.ids[: row.row.start] for row in rows], [row.row.target for row in rows])
    leaves: dict[str, Tensor] = {}

    def through(name: str) -> Any:
        def change(value: Tensor) -> Tensor:
            leaves[name] = torch.zeros_like(value, requires_grad=True)
            return value + leaves[name]

        return change

    trace = lm.trace(batch, inputs=modules, change_outputs={name: through(name) for name in modules}, grad=True)
    with torch.enable_grad():
        losses = target_losses(trace.logits, [row.row for row in rows])
        weights = torch.tensor([row.weight for row in rows], device=losses.device)
        gradients = torch.autograd.grad((losses * weights).sum(), [leaves[name] for name in modules])
    owner = torch.tensor([row.owner for row in rows], device=lm.device)[:, None].expand(batch.shape)
    found = {}
    for name, gradient in zip(modules, gradients, strict=True):
        kept = (gradient != 0).any(-1)
        found[name] = Factors(trace.inputs[name].detach()[kept].float(), gradient[kept].float(), owner[kept])
    return found


class Hypernetwork(nn.Module):
    """A network that turns an edit's gradient into a change of the weights.

    Subclasses are built from ``config()`` alone, and implement :meth:`changes`.
    """

    kind: ClassVar[str]

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The arguments of the constructor, as JSON."""

    @property
    @abstractmethod
    def modules_edited(self) -> list[str]:
        """Names of the modules that are changed."""

    @abstractmethod
    def changes(
        self,
        lm: LanguageModel,
        edits: Sequence[Edit],
        factors: Mapping[str, Factors],
        *,
        together: Tensor | None = None,
        base: Overlay | None = None,
    ) -> Changes:
        """The change of each edit, from its gradient. Gradients flow to the network's parameters.

        Args:
            together: (edits,) with how many edits each is made together, itself included; alone by default.
            base: what is active already.
        """


class GroupedChange(AdapterModule):
    """One module's changes while a network is trained: each run of rows sees those of its own group of edits.

    Args:
        runs: for consecutive runs of rows: their number, u (columns, in) and v (columns, out), which may require
            gradients.
    """

    def __init__(self, runs: Sequence[tuple[int, Tensor, Tensor]]) -> None:
        super().__init__()
        self.runs = list(runs)

    def forward(self, input: Tensor, output: Tensor) -> Tensor:
        parts = input.float().split([count for count, _, _ in self.runs])
        added = [(part @ u.T) @ v for part, (_, u, v) in zip(parts, self.runs, strict=True)]
        return output + torch.cat(added).to(output.dtype)


def grouped_overlay(changes: Changes, row_groups: Tensor, edit_groups: Tensor) -> Overlay:
    """Changes as an overlay for one batch whose row r belongs to group ``row_groups[r]`` (rising)."""
    groups, counts = row_groups.unique_consecutive(return_counts=True)
    parts = {}
    for name, (u, v, owner) in changes.items():
        chosen = [edit_groups[owner] == group for group in groups]
        runs = [(int(count), u[mine], v[mine]) for count, mine in zip(counts, chosen, strict=True)]
        parts[name] = (Adapter(GroupedChange(runs)),)
    return Overlay(parts)


# ------------------------------------------------------------------------------------------------------------ files

N = TypeVar("N", bound=Hypernetwork)


def file_name(kind: str, fingerprint: str) -> str:
    return f"{kind}-{fingerprint[:16]}.safetensors"


def save_network(net: Hypernetwork, lm: LanguageModel, folder: Path, notes: Mapping[str, Any] | None = None) -> Path:
    """Writes a trained network, matrices in float16; ``notes`` are kept in the header."""
    buffers = {name for name, _ in net.named_buffers()}
    tensors = {
        name: tensor.detach().cpu().to(torch.float32 if name in buffers or tensor.dim() < 2 else torch.float16)
        for name, tensor in net.state_dict().items()
    }
    header = {
        "format": _FORMAT,
        "kind": net.kind,
        "fingerprint": lm.fingerprint,
        "model": lm.name,
        "config": json.dumps(net.config()),
        "notes": json.dumps(dict(notes or {})),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(net.kind, lm.fingerprint)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, metadata=header)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def read_network(cls: type[N], path: Path, lm: LanguageModel, *, to_go_on: bool = False) -> N:
    """A network from its file.

    Args:
        to_go_on: only to start a training from, so that it may come from another model of the same shape.

    Raises:
        EditRefused: the file is damaged, of another kind, or trained for another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        if header.get("format") != _FORMAT or header.get("kind") != cls.kind:
            raise EditRefused(f"{path} is no {cls.kind} network of this program. Train one again.")
        if header["fingerprint"] != lm.fingerprint and not to_go_on:
            raise EditRefused(
                f"{path} was trained for the model {header['model']!r} (fingerprint {header['fingerprint'][:12]}), but "
                f"{lm.name!r} (fingerprint {lm.fingerprint[:12]}) is loaded. {_how_to_train(cls.kind, lm)}"
            )
        net = cls(**json.loads(header["config"]))
        net.load_state_dict(tensors, strict=True)
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise EditRefused(f"The network in {path} cannot be read: {error}. {_how_to_train(cls.kind, lm)}") from error
    return net.to(lm.device).eval().requires_grad_(False)


def go_on_from(net: Hypernetwork, path: Path, lm: LanguageModel) -> None:
    """Gives ``net`` the values of a trained network, perhaps of another model of the same shape.

    Raises:
        EditRefused: the file cannot be read, or is of another shape.
    """
    trained = read_network(type(net), path, lm, to_go_on=True)
    measured = dict(net.named_buffers())  # of a model's gradients: each model has its own
    try:
        net.load_state_dict({**trained.state_dict(), **measured})
    except RuntimeError as error:
        raise EditRefused(
            f"{path} was trained for a model of another shape than {lm.name}. Train from nothing."
        ) from error


def load_network(cls: type[N], lm: LanguageModel, folders: Sequence[Path | None]) -> N:
    """The network trained for this very model, from the first folder that has one.

    Raises:
        EditRefused: there is none; the message names the command that trains it.
    """
    looked = [folder for folder in folders if folder is not None]
    for folder in looked:
        path = folder / file_name(cls.kind, lm.fingerprint)
        if path.is_file():
            return read_network(cls, path, lm)
    raise EditRefused(
        f"{cls.kind.upper()} edits through a network that has to be trained once for each model, and there is none "
        f"for {lm.name!r} (fingerprint {lm.fingerprint[:12]}) in {', '.join(map(str, looked))}. "
        f"{_how_to_train(cls.kind, lm)}"
    )


def _how_to_train(kind: str, lm: LanguageModel) -> str:
    return (
        f"Train it with: python -m app train {kind} --model {lm.name} (minutes), "
        "or use R-ROME or MEMIT, which need no training."
    )
