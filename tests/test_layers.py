"""The packages import each other downwards only, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ALLOWED = {
    "knowledge": set(),
    "language_model": {"knowledge"},
    "memory": {"knowledge", "language_model"},
    "editors": {"knowledge", "language_model"},
    "evaluation": {"knowledge", "language_model", "memory", "editors"},
    "app": {"knowledge", "language_model", "memory", "editors", "evaluation"},
}


def imports(path: Path) -> set[str]:
    """The top-level packages that a file imports, at its head or inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found & set(ALLOWED)


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_down_only(package: str) -> None:
    wrong = {
        str(path.relative_to(ROOT)): sorted(above)
        for path in (ROOT / package).rglob("*.py")
        if (above := imports(path) - ALLOWED[package] - {package})
    }
    assert not wrong


@pytest.mark.parametrize("package", [name for name in ALLOWED if name != "app"])
def test_only_the_program_prints_and_parses_arguments(package: str) -> None:
    wrong = []
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
            if isinstance(node, ast.Import) and any(alias.name == "argparse" for alias in node.names):
                wrong.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not wrong
