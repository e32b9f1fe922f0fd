"""Weight changes made elsewhere, read back as overlays: our own files, and plain LoRA adapters of peft.

    overlay = read_change(lm, Path("adapter"))       # a folder with adapter_config.json, or one of our .safetensors
    ledger.add(overlay, source="adapter")

A LoRA adapter is a low-rank change: dW = (alpha / r) B A (2106.09685, section 4.1). Kinds of adapter that are more than
that (DoRA, trained biases, whole modules) are refused, never read halfway.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from knowledge.errors import InvalidInput
from language_model.model import LanguageModel
from language_model.overlay import LowRank, Overlay

_KEY = re.compile(r"^base_model\.model\.(?P<name>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")


def read_change(lm: LanguageModel, path: Path) -> Overlay:
    """The change in a file or folder, checked against the model.

    Raises:
        InvalidInput: nothing there that can be read as a change of weights.
        OverlayMismatch: it was made for a model of other shapes.
        OverlayUnreadable: one of our files, but damaged.
    """
    if path.is_dir():
        if (path / "adapter_config.json").is_file():
            overlay = read_lora(path)
        elif (path / "overlay.safetensors").is_file():
            overlay = Overlay.load(path / "overlay.safetensors")
        elif (path / "config.json").is_file():
            raise InvalidInput(
                f"{path} holds a whole model, not a change of one. Choose it as the model with --model, "
                "or export it as a LoRA adapter."
            )
        else:
            raise InvalidInput(
                f"{path} holds neither adapter_config.json (a PEFT adapter) nor overlay.safetensors (our own export)."
            )
    elif path.is_file():
        overlay = Overlay.load(path)
    else:
        raise InvalidInput(f"There is no file or folder {path}.")
    lm.hooks.prepare([overlay])
    return overlay


def read_lora(folder: Path) -> Overlay:
    """A peft LoRA adapter.

    Raises:
        InvalidInput: it is damaged, or more than a low-rank change.
    """
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise InvalidInput(
            f"The adapter in {folder} cannot be read: {error}. It needs adapter_config.json and "
            "adapter_model.safetensors (weights in other formats are not read, because opening them can run code)."
        ) from error
    _must_be_plain(folder, config)
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        found = _KEY.match(key)
        if found is None:
            raise InvalidInput(f"{folder} holds {key!r}, which is no part of a plain LoRA adapter.")
        halves.setdefault(found["name"], {})[found["side"]] = tensor.float()
    parts = {}
    for name, pair in halves.items():
        if set(pair) != {"A", "B"}:
            raise InvalidInput(f"{folder} holds only one half of the change of {name}.")
        scale = _scale(config, name, pair["A"].shape[0])
        parts[name] = (LowRank(pair["A"].T.contiguous(), (scale * pair["B"].T).contiguous()),)
    if not parts:
        raise InvalidInput(f"The adapter in {folder} changes nothing.")
    return Overlay(parts)


def _must_be_plain(folder: Path, config: dict[str, Any]) -> None:
    kind = config.get("peft_type")
    reasons = [f"it is of the kind {kind}"] if kind != "LORA" else []
    reasons += [
        f"{name} is set"
        for name in ("use_dora", "modules_to_save", "trainable_token_indices", "alora_invocation_tokens")
        if config.get(name)
    ]
    if config.get("bias", "none") != "none":
        reasons.append("it has trained biases")
    if reasons:
        raise InvalidInput(
            f"The adapter in {folder} is more than a low-rank change of weights: {', '.join(reasons)}. "
            "Only plain LoRA adapters can be laid over a model here."
        )


def _scale(config: dict[str, Any], name: str, rank: int) -> float:
    """alpha / r of one module; peft's patterns match the end of a module's name."""
    alpha = _by_pattern(config.get("alpha_pattern"), name, config["lora_alpha"])
    by = _by_pattern(config.get("rank_pattern"), name, config["r"])
    by = rank if by != rank else by
    return float(alpha) / (by**0.5 if config.get("use_rslora") else by)


def _by_pattern(patterns: dict[str, Any] | None, name: str, default: Any) -> Any:
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", name):
            return value
    return default
