"""A name for exactly these weights, so that edits and statistics of one model are never used on another."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Says where a model came from or how it is run, not what it computes.
_VOLATILE = {"_name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures", "use_cache"}


def fingerprint(model: PreTrainedModel) -> str:
    """sha256 over the configuration and every weight, tied weights once.

    16-bit weights are hashed as float32, which is exact: a checkpoint stored in 16 bits has one fingerprint however it
    is loaded, while a float32 checkpoint cut to 16 bits is another model and gets another.
    """
    config = {key: value for key, value in model.config.to_dict().items() if key not in _VOLATILE}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in _weights(model):
        digest.update(f"|{name}|{tuple(tensor.shape)}|".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _weights(model: PreTrainedModel) -> list[tuple[str, Tensor]]:
    parameters = dict(model.named_parameters())  # tied ones once
    all_names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    buffers = {name: tensor for name, tensor in model.state_dict().items() if name not in all_names}
    return sorted((parameters | buffers).items())


def _bytes(tensor: Tensor) -> Any:
    value = tensor.detach().cpu()
    if value.dtype in (torch.bfloat16, torch.float16):
        value = value.float()
    return value.contiguous().reshape(-1).view(torch.uint8).numpy()
