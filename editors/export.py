"""Weight edits as files for other programs: a PEFT adapter, a merged checkpoint, or our own factors.

export_overlay(lm, overlay, folder, "peft")       # PeftModel.from_pretrained(model, folder)
export_overlay(lm, overlay, folder, "merged")     # AutoModelForCausalLM.from_pretrained(folder)
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from knowledge.errors import InvalidInput, UnknownName
from language_model.architectures import is_in_out
from language_model.model import LanguageModel
from language_model.overlay import Adapter, Dense, LowRank, Overlay

FORMATS = ("peft", "merged", "safetensors")


def export_overlay(lm: LanguageModel, overlay: Overlay, path: Path, format: str) -> Path:
    """Writes ``overlay``; returns the folder (peft, merged) or the file (safetensors).

    Raises:
        InvalidInput: the overlay holds added parameters, which are no change of a weight.
        UnknownName: no such format.
    """
    if format == "peft":
        return _peft(lm, overlay, path)
    if format == "merged":
        return _merged(lm, overlay, path)
    if format == "safetensors":
        target = path if path.suffix == ".safetensors" else path / "overlay.safetensors"
        overlay.save(target)
        return target
    raise UnknownName("export format", format, FORMATS)


def adds_parameters(overlay: Overlay) -> bool:
    """Whether an overlay has parts that are no change of a weight."""
    return any(isinstance(part, Adapter) for _, part in overlay)


def _must_be_delta(overlay: Overlay, format: str) -> None:
    added = sorted({type(part.module).__name__ for _, part in overlay if isinstance(part, Adapter)})
    if added:
        raise InvalidInput(
            f"{', '.join(added)} adds parameters that act on a layer's output; that is no change of a weight "
            f"and cannot "
            f"be written as {format}. Export those entries as safetensors, or leave them out."
        )


def factors(parts: tuple[object, ...]) -> tuple[Tensor, Tensor]:
    """All deltas of one module as u (in, r) and v (r, out), float32; dense ones by singular values, exact to 1e-7."""
    us: list[Tensor] = []
    vs: list[Tensor] = []
    for part in parts:
        if isinstance(part, LowRank):
            us.append(part.u.detach().double().cpu())
            vs.append(part.v.detach().double().cpu())
        elif isinstance(part, Dense):
            left, values, right = torch.linalg.svd(part.delta.detach().double().cpu(), full_matrices=False)
            kept = int((values > 1e-7 * values[:1]).sum())
            us.append(left[:, :kept] * values[:kept])
            vs.append(right[:kept])
    u, v = torch.cat(us, 1), torch.cat(vs, 0)
    if u.shape[1] > min(u.shape[0], v.shape[1]):  # many entries: their sum has no more than full rank
        return factors((Dense(u @ v),))
    return u.float(), v.float()


def _peft(lm: LanguageModel, overlay: Overlay, folder: Path) -> Path:
    """lora_B @ lora_A with alpha = r, so that PEFT's scaling is 1. Ranks differ by module: a rank pattern says so."""
    from peft import LoraConfig

    _must_be_delta(overlay, "a PEFT adapter")
    made = {name: factors(parts) for name, parts in overlay.parts.items()}
    made = {name: (u, v) for name, (u, v) in made.items() if u.shape[1]}
    if not made:
        raise InvalidInput("There is no change to export: the edits that are on leave every weight as it is.")
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name, (u, v) in made.items():
        ranks[name] = u.shape[1]
        tensors[f"base_model.model.{name}.lora_A.weight"] = u.T.contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = v.T.contiguous()
    most = max(ranks.values())
    config = LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=lm.name,
        inference_mode=True,
        r=most,
        lora_alpha=most,
        rank_pattern=dict(ranks),
        alpha_pattern=dict(ranks),
        lora_dropout=0.0,
        bias="none",
        target_modules=list(ranks),
        fan_in_fan_out=all(is_in_out(lm.module(name)) for name in ranks),
    )
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(str(folder))
    return folder


def _merged(lm: LanguageModel, overlay: Overlay, folder: Path) -> Path:
    """A checkpoint whose weights are base + change, rounded to the model's dtype. The loaded model is not touched."""
    _must_be_delta(overlay, "a merged checkpoint")
    state = dict(lm.model.state_dict())
    for name in overlay.modules:
        delta = overlay.delta(name)
        assert delta is not None
        key = f"{name}.weight"
        weight = state[key]
        change = delta if is_in_out(lm.module(name)) else delta.T
        state[key] = (weight.double() + change.to(weight.device).double()).to(weight.dtype)
    folder.mkdir(parents=True, exist_ok=True)
    lm.model.save_pretrained(str(folder), state_dict=state)
    lm.tokenizer.save_pretrained(str(folder))
    return folder
