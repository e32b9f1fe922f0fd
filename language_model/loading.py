"""Finding a model by name or path and loading it, with errors that say what was looked for and what to do.

Only safetensors are read and no code of a repository is run.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import GELUTanh, NewGELUActivation

from knowledge.errors import InvalidInput
from language_model.errors import ModelNotFound, ModelUnusable

log = logging.getLogger(__name__)

BUNDLED = "bundled"
BUNDLED_WEIGHTS = Path(__file__).parent / "bundled" / "weights"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "float64": torch.float64}


def fuse_activations(model: nn.Module) -> None:
    """Puts PyTorch's fused GELU where a model of GPT-2's kind has the same function in eight steps of Python.

    One pass over memory instead of eight. The results differ by rounding.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh())


def load_pretrained(
    name_or_path: str, *, device: str | None, dtype: str | None, local_files_only: bool
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model in evaluation mode with frozen weights, and its tokenizer.

    Args:
        name_or_path: "bundled", a folder, or a name on the Hugging Face hub.
        device: "cpu", "cuda", ...; None takes CUDA when there is one.
        dtype: a name of ``DTYPES``; None takes float32 on the CPU, the checkpoint's own type elsewhere.
        local_files_only: never ask the network, only folders and the local cache.

    Raises:
        ModelNotFound: nothing there.
        ModelUnusable: something is there that cannot be used.
    """
    source = _resolve(name_or_path)
    try:
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    except RuntimeError:
        raise InvalidInput(
            f"There is no device {device!r}. Give cpu, cuda (a GPU), cuda:1 (the second), or mps."
        ) from None
    if place.type == "cuda" and not torch.cuda.is_available():
        raise InvalidInput(
            f"The device {device!r} was asked for, but PyTorch sees no CUDA device here. Use device 'cpu'."
        )
    local = local_files_only or Path(source).is_dir()
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": False}
    kind: Any = _dtype(dtype, place)
    try:
        config = AutoConfig.from_pretrained(source, **options)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        model = AutoModelForCausalLM.from_pretrained(source, config=config, use_safetensors=True, dtype=kind, **options)
    except Exception as error:  # transformers raises whatever its layers raise; the user needs one sentence
        raise _explain(error, name_or_path, local_files_only) from error
    if tokenizer is None:
        raise ModelUnusable(f"The model {name_or_path!r} has no tokenizer; add tokenizer.json to its folder.")
    model.to(place).eval().requires_grad_(False)
    log.info("loaded %s (%s) on %s as %s", name_or_path, config.model_type, place, model.dtype)
    return model, tokenizer


def _resolve(name_or_path: str) -> str:
    """A folder that holds a model, or the name as given when it can only be a name on the hub."""
    name = name_or_path.strip()
    if not name:
        raise InvalidInput("The name of the model is empty. Give 'bundled', a folder or a Hugging Face name.")
    folder = BUNDLED_WEIGHTS if name == BUNDLED else Path(name).expanduser()
    if name == BUNDLED and not (folder / "config.json").is_file():
        raise ModelNotFound(
            f"The bundled model is not there: looked for {folder / 'config.json'}. Restore "
            "language_model/bundled/weights from the repository, or train it with: python -m app train bundled"
        )
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ModelNotFound(
                f"The folder {folder} holds no model: it has no config.json. Give a model's own folder."
            )
        if not any(folder.glob("*.safetensors")):
            raise ModelUnusable(
                f"The folder {folder} has no *.safetensors file. Weights in other formats (pytorch_model.bin) are "
                "not read, because opening them can run code; convert them with model.save_pretrained(folder)."
            )
        return str(folder)
    looks_like_path = folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or os.sep * 2 in name
    if looks_like_path:
        raise ModelNotFound(f"There is no folder {folder}. Check the path, or give a Hugging Face name such as 'gpt2'.")
    return name


def _dtype(name: str | None, device: torch.device) -> torch.dtype | str:
    if name is None:
        return torch.float32 if device.type == "cpu" else "auto"
    if name not in DTYPES:
        raise InvalidInput(f"Unknown dtype {name!r}. Available: {', '.join(DTYPES)}.")
    return DTYPES[name]


def _explain(error: Exception, name: str, local_files_only: bool) -> ModelNotFound | ModelUnusable:
    """One sentence out of the many ways in which loading fails."""
    text = str(error)
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    if "Unrecognized configuration class" in text or "Unrecognized model" in text:
        return ModelUnusable(f"{name!r} is not a causal language model that transformers knows: {first}")
    if "model type" in text and "does not recognize" in text:
        return ModelUnusable(f"The installed transformers does not know the family of {name!r}: {first}")
    if "trust_remote_code" in text or "custom code" in text:
        return ModelUnusable(f"{name!r} brings its own code, which is never run here. Choose a model that needs none.")
    if "safetensors" in text.lower() and "not appear to have" in text:
        return ModelUnusable(
            f"{name!r} has no weights as safetensors; other formats are not read. Choose another model."
        )
    offline = local_files_only or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    if isinstance(error, OSError) or "Connection" in type(error).__name__ or "Offline" in type(error).__name__:
        reach = (
            "Downloading is switched off (local files only): allow it, or put the model into a folder and give its "
            "path."
            if offline
            else "Check the spelling and the network, or download it elsewhere and give the path of its folder."
        )
        return ModelNotFound(
            f"The model {name!r} was not found: there is no such folder, it is not in the local Hugging Face cache, "
            f"and it could not be fetched from the hub ({first}). {reach} 'bundled' always works."
        )
    return ModelUnusable(f"The model {name!r} cannot be loaded: {type(error).__name__}: {first}")
