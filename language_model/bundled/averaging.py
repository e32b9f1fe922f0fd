"""The mean of models of one training: ``python -m app train average A=.25 B=.35 C=.4 --output DIR``.

Each part of a training ends in a place of its own around the same solution, and their mean lies nearer to its middle
(stochastic weight averaging, 1803.05407; "model soups", 2203.05482). For the bundled model the mean of the last three
parts was better than any of them on nearly every figure, most on telling which of eight facts applies.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from knowledge.errors import InvalidInput

_WEIGHTS, _SAME = "model.safetensors", ("tokenizer.json", "config.json")


def average(parts: Mapping[Path, float], output: Path) -> Path:
    """Writes the weighted mean of some models; all other files are those of the last one.

    Args:
        parts: folders of models, each with its weight; the weights are divided by their sum.

    Raises:
        InvalidInput: fewer than two models, a weight that is not positive, a folder without weights, or models that
            differ in shape or tokenizer.
    """
    if len(parts) < 2 or not all(weight > 0 for weight in parts.values()):
        raise InvalidInput("A mean takes two models or more, each with a weight over 0.")
    total = sum(parts.values())
    *_, last = parts
    mean: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for folder, weight in parts.items():
        if not (folder / _WEIGHTS).is_file():
            raise InvalidInput(f"There is no {_WEIGHTS} in {folder}. Give the folder of a trained model.")
        tensors = load_file(folder / _WEIGHTS)
        kinds = {name: tensor.dtype for name, tensor in tensors.items()}
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        if mean and shapes != {name: tensor.shape for name, tensor in mean.items()}:
            raise InvalidInput(f"The model in {folder} has other parts or shapes than those before it.")
        if any(_read(folder, name) != _read(last, name) for name in _SAME):
            raise InvalidInput(f"The model in {folder} has another tokenizer or configuration than that in {last}.")
        for name, tensor in tensors.items():
            share = tensor.float() * (weight / total)
            mean[name] = mean[name] + share if name in mean else share
    if output.resolve() != last.resolve():
        shutil.copytree(last, output, dirs_exist_ok=True)
    done = {name: tensor.to(kinds[name]).contiguous() for name, tensor in mean.items()}
    save_file(done, output / _WEIGHTS, metadata={"format": "pt"})
    (output / _WEIGHTS).chmod(0o644)  # the library writes 0600
    return output


def _read(folder: Path, name: str) -> bytes:
    path = folder / name
    return path.read_bytes() if path.is_file() else b""
