"""The structure of the source: no circles, one-way floors, small files and folders, references."""

from __future__ import annotations

import ast
import subprocess
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("emosym", "model_zoo", "memory_bank", "data_tools", "eval", "train", "benchmarks")
LONGEST = 450
"""Lines of a module."""
CROWD = 16
"""Modules beside each other in a folder."""
FLOORS = (
    ("errors",),
    ("strict_json", "yaml_text", "files", "randomness", "pictures"),
    ("affect", "config", "plugins"),
    ("records", "diffusion"),
    ("interfaces",),
    ("tasks",),
    ("models",),
    ("rl",),
    ("inference", "console"),
    ("cli",),
    ("__main__",),
)
"""Parts of `emosym/`, lowest first: a part imports lower floors and itself."""


def tracked(*patterns: str) -> list[Path]:
    """Return the files that git knows, or would add, and that are there."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return [ROOT / name for name in sorted(set(listed)) if (ROOT / name).is_file()]


def imports(modules: dict[str, str]) -> dict[str, set[str]]:
    """Return the modules that each module (name -> source) imports anywhere in it.

    Imports inside functions and under TYPE_CHECKING count. A package counts as its `__init__`
    where a name is taken from it, not where it merely leads to a module.
    """
    found: dict[str, set[str]] = {}
    for name, source in modules.items():
        found[name] = set()
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found[name].add(inner if inner in modules else node.module)
        found[name] = (found[name] & modules.keys()) - {name}
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Return the modules of one circle of imports, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def source() -> dict[str, str]:
    """Return every module of the product: dotted name -> text."""
    modules = {}
    for path in tracked(*(f"{folder}/*.py" for folder in FOLDERS)):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        modules[name] = path.read_text(encoding="utf-8")
    return modules


def floor_of(module: str) -> int:
    """Return the floor of a module of `emosym`."""
    part = [*module.split("."), ""][1]
    return next((number for number, parts in enumerate(FLOORS) if part in parts), -1)


def rises(graph: dict[str, set[str]]) -> list[str]:
    """Return `a -> b` for every import within `emosym` that does not go down."""
    return sorted(
        f"{name} -> {other}"
        for name, others in graph.items()
        for other in others
        if name.startswith("emosym.") and other.startswith("emosym.")
        if name.split(".")[1] != other.split(".")[1] and floor_of(name) <= floor_of(other)
    )


def test_no_imports_run_in_a_circle():
    assert circle(imports(source())) == []


def test_imports_within_emosym_go_down():
    graph = imports(source())
    assert {name for name in graph if name.startswith("emosym.") and floor_of(name) < 0} == set()
    assert rises(graph) == []


def test_only_composition_roots_import_the_command():
    wrong = [
        f"{name} -> {other}"
        for name, others in imports(source()).items()
        for other in others
        if other.startswith("emosym.cli") and not name.startswith("emosym.cli")
        if not name.endswith("__main__")
    ]
    assert wrong == []


def test_no_module_is_long():
    counts = {path: len(path.read_text("utf-8").splitlines()) for path in tracked("*.py")}
    assert {str(path): n for path, n in counts.items() if n > LONGEST} == {}


def test_no_folder_is_crowded():
    counts = Counter(path.parent for path in tracked("*.py") if path.name != "__init__.py")
    assert {str(path): n for path, n in counts.items() if n > CROWD} == {}


def test_section_signs_stand_where_a_reader_can_follow_them():
    """docs/papers.md names each paper; elsewhere a section is written out."""
    allowed = {ROOT / "docs" / "papers.md", Path(__file__).resolve()}
    texts = tracked("*.py", "*.md", "*.yaml", "*.cfg", "*.toml", "*.jinja", "Makefile")
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in texts
        if path not in allowed
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if "§" in line
    ]
    assert wrong == []


CIRCLES = {
    "between two": {"a": "import b", "b": "from a import x"},
    "under TYPE_CHECKING": {"a": "if TYPE_CHECKING:\n    import b", "b": "import a"},
    "inside a function": {"a": "def f():\n    from b import x", "b": "import a"},
    "of three": {"a": "import b", "b": "import c", "c": "import a"},
}


@pytest.mark.parametrize("modules", CIRCLES.values(), ids=CIRCLES)
def test_the_checker_finds_a_circle(modules):
    assert set(circle(imports(modules))) == modules.keys()


def test_the_checker_follows_no_circle_through_a_package_that_only_leads_on():
    modules = {"p": "from p.a import x", "p.a": "from p.b import y", "p.b": ""}
    assert circle(imports(modules)) == []
    assert imports({"p": "", "p.a": "", "q": "from p import a"})["q"] == {"p.a"}


def test_the_checker_finds_an_import_that_rises():
    modules = {"emosym.affect.a": "import emosym.rl.b", "emosym.rl.b": "import emosym.errors"}
    graph = imports(modules | {"emosym.errors": ""})
    assert rises(graph) == ["emosym.affect.a -> emosym.rl.b"]
