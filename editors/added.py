"""Names under which overlay files know the added parameters of our editors; the classes are imported on first use."""

from __future__ import annotations

from language_model.adapters import register_adapter

ADAPTERS = {
    "grace": "editors.grace:GraceEntries",
    "t-patcher": "editors.tpatcher:Patches",
    "calinet": "editors.calinet:SideNet",
}

for _kind, _target in ADAPTERS.items():
    register_adapter(_kind, _target)
