"""Overlays as safetensors files: numbers in tensors, structure as JSON in the header, no pickle.

Header: ``format`` names the version, ``parts`` is a JSON list in order of addition, each with the module's name, the
kind (``low_rank``, ``dense``, ``adapter``), the prefix of its tensors, and for adapters their registered name and
arguments.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from knowledge.errors import PalimpsestError, UnknownName
from language_model.adapters import adapter_class
from language_model.errors import OverlayUnreadable
from language_model.overlay import Adapter, Dense, LowRank, Overlay, Part

FORMAT = "palimpsest-overlay/1"


def save_overlay(overlay: Overlay, path: Path) -> None:
    """Writes the file in one step: a reader sees the old one or the whole new one."""
    tensors: dict[str, Tensor] = {}
    described: list[dict[str, Any]] = []
    for number, (name, part) in enumerate(overlay):
        row: dict[str, Any] = {"module": name, "kind": _kind(part), "prefix": f"{number}."}
        if isinstance(part, Adapter):
            row |= {"adapter": part.module.kind, "config": part.module.config()}
        described.append(row)
        for key, tensor in part.tensors().items():
            tensors[f"{number}.{key}"] = tensor.detach().cpu().clone().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={"format": FORMAT, "parts": json.dumps(described)})
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _kind(part: Part) -> str:
    return {LowRank: "low_rank", Dense: "dense", Adapter: "adapter"}[type(part)]


def load_overlay(path: Path) -> Overlay:
    """Reads a file of :func:`save_overlay`, tensors on the CPU.

    Raises:
        OverlayUnreadable: no such file, another kind of file, or an adapter that is not registered.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise OverlayUnreadable(
                    f"{path} is not an overlay of this version: its format is {header.get('format')!r}, expected "
                    f"{FORMAT!r}. Export it again with this version of the program."
                )
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118, not a dict
        parts: dict[str, tuple[Part, ...]] = {}
        for row in json.loads(header["parts"]):
            own = {key[len(row["prefix"]) :]: t for key, t in tensors.items() if key.startswith(row["prefix"])}
            parts[row["module"]] = (*parts.get(row["module"], ()), _build(row, own))
    except FileNotFoundError as error:
        raise OverlayUnreadable(
            f"There is no overlay file {path}. The edit that it held has to be applied again."
        ) from error
    except UnknownName as error:
        raise OverlayUnreadable(f"{path} needs an adapter that this program does not have. {error}") from error
    except PalimpsestError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, OSError) as error:
        raise OverlayUnreadable(f"{path} cannot be read as an overlay, it is damaged: {error}.") from error
    return Overlay(parts)


def _build(row: dict[str, Any], tensors: dict[str, Tensor]) -> Part:
    if row["kind"] == "low_rank":
        return LowRank(tensors["u"], tensors["v"])
    if row["kind"] == "dense":
        return Dense(tensors["delta"])
    return Adapter(adapter_class(row["adapter"]).restore(row["config"], tensors))
