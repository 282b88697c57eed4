"""Invariant 10, over the whole tree: one module reads the environment, one reads clocks, one knows aiokafka."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "evaluator"
MODULES = sorted(PACKAGE.rglob("*.py"))
CLOCKS = {
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.perf_counter",
    "datetime.now",
    "datetime.utcnow",
    "date.today",
}
LAST_RESORT = {"cli/__init__.py": 1, "runtime/last_net.py": 1}
"""Where everything may be caught, and how often: a bug has an exit code, one in a decoder gives a dead letter."""

ENVIRONMENT = {"os.environ", "os.getenv"}


def dotted(node: ast.expr) -> str:
    """`a.b.c` of an attribute chain."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def uses(path: Path, names: set[str]) -> set[str]:
    """Which of the dotted names a module uses."""
    tree = ast.parse(path.read_text())
    return {name for node in ast.walk(tree) if isinstance(node, ast.Attribute) and (name := dotted(node)) in names}


def imports(path: Path, package: str) -> bool:
    """Whether a module imports a package."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        if any(name.split(".")[0] == package for name in names):
            return True
    return False


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_reads_neither_clocks_nor_the_environment(path: Path) -> None:
    where = str(path.relative_to(PACKAGE))
    assert where == "runtime/clock.py" or not uses(path, CLOCKS)
    assert where == "runtime/settings.py" or not uses(path, ENVIRONMENT)
    assert where.startswith("runtime/log/kafka") or not imports(path, "aiokafka")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_exception_is_caught_without_being_named(path: Path) -> None:
    handlers = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ExceptHandler)]
    unnamed = [node for node in handlers if node.type is None or dotted(node.type) in {"Exception", "BaseException"}]
    assert len(unnamed) == LAST_RESORT.get(str(path.relative_to(PACKAGE)), 0), [node.lineno for node in unnamed]
