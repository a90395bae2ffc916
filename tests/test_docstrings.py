"""What a module's docstring says of its place: who imports it, and what it imports."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "mtdistill"
BASE = {"display", "errors", "files", "messages", "text"}  # anything may import them, and need not say so
MANY = 8  # folders; beyond that a module is imported everywhere
FEW = 4  # modules of the same folder; beyond that they are its neighbours


def name_of(path: Path) -> str:
    """`data.rows` for a module, `data` for a folder, `mtdistill` for the root."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__") or "mtdistill"


TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}


def imported_by(tree: ast.Module) -> set[str]:
    """Modules of ours that a module imports, also within a function."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("mtdistill."):
            base = f"{node.module}".removeprefix("mtdistill").removeprefix(".")
            below = (f"{base}.{alias.name}".removeprefix(".") for alias in node.names)
            found |= {name if name in TREES else base for name in below}
    return found


IMPORTS = {name: imported_by(tree) for name, tree in TREES.items()}


def listed(places: set[str], folder: str) -> str:
    """Folders by name; modules of one's own folder by name where they are few."""
    near = {place for place in places if place.partition(".")[0] == folder}
    far = {place.partition(".")[0] for place in places - near}
    names = [*sorted(far), *(sorted(near) if len(near) <= FEW else ["its neighbours"])]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def place(name: str) -> str:
    """The sentence that a docstring has. That of a folder is about all modules in it."""
    folder = name.partition(".")[0]
    inside = {other for other in TREES if f"{other}.".startswith(f"{name}.")}
    importers = {other for other, names in IMPORTS.items() if names & inside} - inside
    imported = set().union(*(IMPORTS[other] for other in inside)) - inside - BASE
    everywhere = len({importer.partition(".")[0] for importer in importers}) > MANY
    by = "everywhere" if everywhere else f"by {listed(importers, folder)}"
    return f"Imported {by}; imports {listed(imported, folder)}." if imported else f"Imported {by}."


PLACED = [name for name, tree in TREES.items() if "Imported " in (ast.get_docstring(tree) or "")]


@pytest.mark.parametrize("name", PLACED)
def test_a_docstring_says_where_the_module_stands(name: str) -> None:
    docstring = " ".join((ast.get_docstring(TREES[name]) or "").split())
    assert place(name) in docstring


def test_docstrings_are_found() -> None:
    assert len(PLACED) >= 50
