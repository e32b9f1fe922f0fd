"""What is in use, for ``python -m app models``."""

from __future__ import annotations

from typing import Any

from app.engine import Engine


def inventory(engine: Engine) -> dict[str, Any]:
    """Model, encoder, gate and data as plain data; loads the model."""
    from editors.registry import available as editors
    from memory.registry import available as strategies

    lm, gate = engine.lm, engine.gate
    return {
        "model": {
            "name": lm.name,
            "family": lm.model.config.model_type,
            "parameters": sum(weight.numel() for weight in lm.model.parameters()),
            "device": str(lm.device),
            "dtype": str(lm.dtype).removeprefix("torch."),
            "context": lm.context,
            "chat_template": lm.has_chat,
            "fingerprint": lm.fingerprint,
        },
        "encoder": engine.embedder.description,
        "gate": {**gate.calibration.to_json(), "threshold": gate.threshold},
        "editors": list(editors()),
        "strategies": [entry.name for entry in strategies()],
        "data": str(engine.settings.data),
        "facts": engine.store.count(namespace=engine.settings.namespace),
        "weight_edits": engine.active_weight_edits(),
    }
