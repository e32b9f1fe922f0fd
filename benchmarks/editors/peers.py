"""A peer's own code on the same edits and the same model: a checkout of EasyEdit, or of the authors' memit repository.

    check_peer(path, ["memit"])                     # says what is missing
    cell = run_peer(path, "memit", lm, edits)       # {"seconds": ..., "peak": MiB, "file": the change}

The peer runs in a process of its own (``python -m benchmarks.editors.peers PATH JOB``), through the functions that its
own scripts call (``apply_memit_to_model(model, tokenizer, requests, hparams)`` and its like), with our layers and
numbers of steps and its own prefixes and value search. Only the second moments are ours: the peer would read 100,000
documents of Wikipedia first. Both published code bases put their tensors on a CUDA device, whatever the model is on;
here they go where the model is. Of a peer's packages only the method's own are imported, not the ones around it, which
load all that the peer can do.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from editors.registry import get_editor
from editors.statistics import MomentStore
from knowledge.edit import Edit
from knowledge.errors import InvalidInput, PalimpsestError
from language_model.model import LanguageModel
from language_model.overlay import Dense, Overlay

LAYOUTS = {"EasyEdit": "easyeditor/models/", "memit": ""}
"""Where the methods' packages lie in each peer."""

NAMES = {"memit": "MEMIT", "rome": "ROME", "r-rome": "R_ROME"}
_STATISTICS = {"memit": "memit_main", "rome": "compute_u", "r-rome": "compute_u"}  # the module that asks for C


class PeerFailed(PalimpsestError):
    """The peer's code could not be imported or stopped with an error."""


def check_peer(path: Path, methods: Sequence[str]) -> str:
    """Which peer lies at ``path``.

    Raises:
        InvalidInput: none that is known, or one without one of the methods.
    """
    for layout, folder in LAYOUTS.items():
        if not (path / folder / "memit" / "memit_main.py").is_file():
            continue
        packages = {name: path / folder / _package(name) for name in methods}
        missing = [name for name, at in packages.items() if not (at / f"{_package(name)}_main.py").is_file()]
        if missing:
            raise InvalidInput(
                f"The {layout} checkout at {path} has no {', '.join(missing)}. Leave it out with --methods."
            )
        return layout
    looked = " or ".join(f"{folder}memit/memit_main.py" for folder in LAYOUTS.values())
    raise InvalidInput(f"{path} is no checkout of {' or of '.join(LAYOUTS)}: it has no {looked}.")


def run_peer(
    path: Path, method: str, lm: LanguageModel, edits: Sequence[Edit], moments: MomentStore, *, threads: int = 0
) -> dict[str, Any]:
    """The peer's change for these edits: seconds, peak memory in MiB above the loaded model, and a file with it.

    Args:
        threads: of the peer's process; 0: as many as it likes.

    Raises:
        PeerFailed: what the peer's code lacks, or where it stopped.
    """
    layout = check_peer(path, [method])
    settings: Any = get_editor(method, moments=moments).settings(lm)
    layers = list(getattr(settings, "layers", None) or [settings.layer])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lm.model.save_pretrained(folder / "model")
        lm.tokenizer.save_pretrained(folder / "model")
        keys = moments.get(lm, layers)
        matrices = {lm.architecture.down(layer): keys[layer].matrix.float().contiguous() for layer in layers}
        save_file(matrices, folder / "moments.safetensors")
        job = {
            "layout": layout,
            "method": method,
            "requests": _requests(layout, edits),
            "hparams": _hparams(lm, settings, layers, folder),
            "device": str(lm.device),
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        paths = [str(path.resolve()), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        limit = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.editors.peers", str(path.resolve()), str(folder)],
            cwd=path,  # memit reads its globals.yml from there
            env={**os.environ, **limit, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
            capture_output=True,
            text=True,
            check=False,
        )
        answer = folder / "answer.json"
        if not answer.is_file():
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise PeerFailed(f"{layout} at {path} stopped: {last}")
        found: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    if "error" in found:
        raise PeerFailed(f"{layout} at {path} cannot be compared with: {found['error']}")
    return found


def _package(method: str) -> str:
    return method.replace("-", "_")


def _requests(layout: str, edits: Sequence[Edit]) -> list[dict[str, Any]]:
    """Edits as the peer takes them."""
    return [
        {
            "case_id": number,
            "prompt": edit.prompt,
            "subject": edit.subject,
            "target_new": edit.target_new if layout == "EasyEdit" else {"str": edit.target_new},
            "target_true": edit.target_true or "" if layout == "EasyEdit" else {"str": edit.target_true or ""},
        }
        for number, edit in enumerate(edits)
    ]


def _hparams(lm: LanguageModel, settings: Any, layers: list[int], folder: Path) -> dict[str, Any]:
    """Everything that the peers' settings classes ask for; each takes what it has a field for."""
    row = lm.architecture
    inputs = int(lm.module(row.down(layers[0])).weight.numel() // lm.hidden_size)
    tied = lm.model.get_output_embeddings().weight is lm.model.get_input_embeddings().weight  # one name for both
    return {
        "layers": layers, "layer_selection": "all", "fact_token": "subject_last",
        "v_num_grad_steps": settings.values.steps, "v_lr": settings.values.lr, "v_loss_layer": lm.num_layers - 1,
        "v_weight_decay": 0.5, "clamp_norm_factor": settings.values.clamp, "kl_factor": settings.values.essence,
        "mom2_adjustment": True, "mom2_update_weight": getattr(settings, "weight", 0.0) * inputs,
        "context_template_length_params": [[5, 10], [10, 10]],
        "rewrite_module_tmp": _template(row.down), "layer_module_tmp": _template(row.block),
        "mlp_module_tmp": _template(row.mlp), "attn_module_tmp": _template(row.attn),
        "ln_f_module": row.final_norm, "lm_head_module": row.embedding if tied else row.lm_head,
        "mom2_dataset": "wikipedia", "mom2_n_samples": 100000, "mom2_dtype": "float32",
        "alg_name": "",
        "device": lm.device.index or 0, "model_name": str(folder / "model"), "stats_dir": str(folder), "max_length": 40,
        "batch_size": 1, "model_parallel": False, "fp16": False,
        "original_implementation": False, "enable_random_prefix_keys": True, "enable_prompt_keys": False,
    }  # fmt: skip


def _template(name: Any) -> str:
    """A module's name with {} for its layer."""
    first, second = str(name(0)), str(name(1))
    at = next(index for index, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)
    return f"{first[:at]}{{}}{first[at + 1 :]}"


# ------------------------------------------------------------------------------------------- in the peer's process


def _work(folder: Path) -> dict[str, Any]:
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    package, title = _package(job["method"]), NAMES[job["method"]]
    root = (LAYOUTS[job["layout"]] + package).replace("/", ".")
    _bare_parents(Path(sys.argv[1]), root)
    try:
        entry = importlib.import_module(f"{root}.{package}_main")
        asks: Any = importlib.import_module(f"{root}.{_STATISTICS[job['method']]}")
        apply = getattr(entry, f"apply_{package}_to_model")
        settings = getattr(importlib.import_module(f"{root}.{package}_hparams"), f"{title}HyperParams")
    except ModuleNotFoundError as error:
        return {
            "error": f"its code needs the module {error.name!r}, which is not installed here. "
            f"Install it (its requirements.txt says which version), or leave --peer out."
        }
    except (ImportError, AttributeError) as error:
        return {"error": f"{root} is not as it is in the version that we know: {error}."}
    given = {name: job["hparams"][name] for name in _fields(settings) if name in job["hparams"]}
    lacking = [item.name for item in dataclasses.fields(settings) if item.name not in given and _required(item)]
    if lacking:
        return {"error": f"its {settings.__name__} asks for settings that we do not know: {', '.join(lacking)}."}
    moments = load_file(folder / "moments.safetensors")
    asks.layer_stats = lambda _model, _tokenizer, name, *_, **__: SimpleNamespace(
        mom2=SimpleNamespace(moment=lambda: moments[name])
    )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "model").to(job["device"])
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    before = {name: parameter.detach().cpu().clone() for name, parameter in model.named_parameters()}
    memory, start = _peak(), time.perf_counter()
    with _Here(torch.device(job["device"])):
        edited = apply(model, tokenizer, job["requests"], settings(**given))
    seconds, peak = time.perf_counter() - start, _peak() - memory
    edited = edited[0] if isinstance(edited, tuple) else edited
    handle, path = tempfile.mkstemp(suffix=".safetensors")
    os.close(handle)
    changes(edited, before).save(path)
    return {"seconds": seconds, "peak": peak, "file": path}


class _Here(TorchFunctionMode):
    """Tensors that a peer sends to a CUDA device go where the model is."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = {name: self._placed(value) for name, value in (kwargs or {}).items()}
        return func(*map(self._placed, args), **named)

    def _placed(self, value: Any) -> Any:
        cuda = isinstance(value, str) and value.split(":")[0] == "cuda"
        return self.device if cuda or (isinstance(value, torch.device) and value.type == "cuda") else value


def _bare_parents(path: Path, root: str) -> None:
    """Stands in for the packages around ``root``, so that their ``__init__`` files are not run."""
    parts = root.split(".")[:-1]
    for depth in range(1, len(parts) + 1):
        package = ModuleType(".".join(parts[:depth]))
        package.__path__ = [str(path.joinpath(*parts[:depth]))]
        sys.modules[package.__name__] = package


def changes(model: torch.nn.Module, before: dict[str, torch.Tensor]) -> Overlay:
    """What became of a model's weights, as an overlay. Weights are taken (in, out) by the kind of their module."""
    from language_model.architectures import is_in_out

    modules = dict(model.named_modules())
    found: dict[str, tuple[Dense, ...]] = {}
    for name, parameter in model.named_parameters():
        delta = parameter.detach().cpu().float() - before[name].float()
        owner = name.removesuffix(".weight")
        if bool((delta != 0).any()):
            found[owner] = (Dense((delta if is_in_out(modules[owner]) else delta.T).contiguous()),)
    return Overlay(found)


def _fields(settings: Any) -> list[str]:
    return [item.name for item in dataclasses.fields(settings)]


def _required(item: Any) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    folder = Path(sys.argv[2])
    try:
        answer = _work(folder)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        cuda = any(word in str(error) for word in ("CUDA", "NVIDIA"))
        hint = " Its code needs a CUDA device, and none can be used here." if cuda else ""
        answer = {
            "error": f"{type(error).__name__} in {Path(where.filename).name}, line {where.lineno}: {error}.{hint}"
        }
    (folder / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


if __name__ == "__main__":
    main()
