"""Who may import whom, and what a module may do when it is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

INSTALLED = {"emosym", "model_zoo", "memory_bank", "data_tools"}
MAY_IMPORT = {
    "emosym": set(),
    "model_zoo": {"emosym"},
    "memory_bank": {"emosym"},
    "data_tools": {"emosym"},
    "eval": INSTALLED,
    "train": INSTALLED | {"eval"},
    "benchmarks": INSTALLED | {"eval", "train"},
}
HOME = {
    "transformers": "model_zoo",
    "diffusers": "model_zoo",
    "peft": "model_zoo",
    "trl": "model_zoo",
    "bitsandbytes": "model_zoo",
    "faiss": "memory_bank",
    "hnswlib": "memory_bank",
    "lancedb": "memory_bank",
    "deepspeed": "train",
}
COMPOSITION_ROOT = "emosym/cli/"
STRING_REGISTRY = "emosym/inference/lazy.py"
"""The one place that imports a module by its name in a string."""
EXEMPT = "benchmarks"
"""Benches compare with the libraries themselves, so the one-home rule is not theirs."""
VAGUE = {"utils", "util", "common", "helpers", "helper", "misc"}
ACTIONS = {"open", "print", "mkdir", "makedirs", "write_text", "write_bytes", "unlink", "putenv"}
ACTIONS |= {"setdefault", "seed", "manual_seed", "set_num_threads", "basicConfig", "run", "Popen"}


def violations(root: Path) -> list[str]:
    """Return `file:line: rule` for every broken rule in the six folders below `root`."""
    found = []
    for folder in MAY_IMPORT:
        for path in sorted((root / folder).rglob("*.py")):
            name = path.relative_to(root).as_posix()
            if VAGUE & set(name.removesuffix(".py").split("/")):
                found.append(f"{name}:1: a vague module name")
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found += [f"{name}:{line}: {rule}" for line, rule in _import_rules(name, tree)]
            found += [
                f"{name}:{line}: {rule} at import"
                for statement in tree.body
                for line, rule in _actions(statement)
            ]
    return found


def _import_rules(name: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    folder, _, file = name.partition("/")
    is_root = name.startswith(COMPOSITION_ROOT) or file.rpartition("/")[2] == "__main__.py"
    allowed = {folder} | MAY_IMPORT[folder] | (INSTALLED if is_root else set())
    for line, module in _imports(tree):
        if module in MAY_IMPORT and module not in allowed:
            yield line, f"{folder} may not import {module}"
        if module == "tests":
            yield line, f"{folder} may not import tests"
        if folder != EXEMPT and HOME.get(module, folder) != folder:
            yield line, f"{module} lives in {HOME[module]}"
        if module == "importlib.import_module" and name != STRING_REGISTRY:
            yield line, "imports by a string"


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield the top-level name of every import, also of those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module.split(".")[0]
        elif isinstance(node, ast.Call) and _called(node) in {"import_module", "__import__"}:
            yield node.lineno, "importlib.import_module"


def _actions(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield what a module-level statement does: calls that act, changes of the environment.

    Bodies of functions run later and are left out; bodies of classes run now.
    """
    if isinstance(node, ast.If) and _is_guard(node.test):
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        parts = [*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)]
    elif isinstance(node, ast.Lambda):
        parts = []
    else:
        parts = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.Call) and _called(node) in ACTIONS:
            yield node.lineno, f"calls {_called(node)}()"
        if isinstance(node, ast.Assign | ast.AugAssign | ast.Delete) and _sets_environment(node):
            yield node.lineno, "changes os.environ"
    for part in parts:
        yield from _actions(part)


def _called(node: ast.Call) -> str:
    function = node.func
    return getattr(function, "attr", None) or getattr(function, "id", "")


def _is_guard(test: ast.expr) -> bool:
    return ast.unparse(test) == "__name__ == '__main__'"


def _sets_environment(node: ast.Assign | ast.AugAssign | ast.Delete) -> bool:
    targets = [node.target] if isinstance(node, ast.AugAssign) else node.targets
    return any(
        isinstance(target, ast.Subscript) and ast.unparse(target.value).endswith("environ")
        for target in targets
    )


def test_the_source_keeps_its_rules():
    assert violations(ROOT) == []


def test_the_source_is_there_to_be_checked():
    counts = {folder: len(list((ROOT / folder).rglob("*.py"))) for folder in MAY_IMPORT}
    assert min(counts.values()) >= 1
    assert sum(counts.values()) >= 20


BAD = {
    "emosym/a.py": ("import model_zoo.zoo\n", "emosym may not import model_zoo"),
    "emosym/lazy.py": ("def f():\n    import train\n", "emosym may not import train"),
    "emosym/cli/run.py": ("from train import trainer\n", "emosym may not import train"),
    "emosym/deep.py": ("from diffusers import UNet\n", "diffusers lives in model_zoo"),
    "emosym/text.py": ("x = __import__('train')\n", "imports by a string"),
    "model_zoo/b.py": ("from memory_bank import bank\n", "model_zoo may not import memory_bank"),
    "model_zoo/c.py": ("import deepspeed.comm\n", "deepspeed lives in train"),
    "memory_bank/d.py": (
        "from eval.generation.continuity import f1\n",
        "memory_bank may not import eval",
    ),
    "data_tools/e.py": ("from tests.data import x\n", "data_tools may not import tests"),
    "data_tools/f.py": (
        "import importlib\nm = importlib.import_module('train')\n",
        "imports by a string",
    ),
    "eval/g.py": ("import train\n", "eval may not import train"),
    "eval/h.py": ("import faiss\n", "faiss lives in memory_bank"),
    "train/i.py": ("if True:\n    from peft import LoraConfig\n", "peft lives in model_zoo"),
    "train/utils.py": ("", "a vague module name"),
    "train/misc/j.py": ("", "a vague module name"),
    "train/k.py": ("import os\nos.environ['A'] = 'b'\n", "changes os.environ at import"),
    "train/l.py": ("import os\nos.environ.setdefault('A', 'b')\n", "calls setdefault() at import"),
    "train/m.py": ("from pathlib import Path\nPath('x').mkdir()\n", "calls mkdir() at import"),
    "train/n.py": ("X = [line for line in open('x')]\n", "calls open() at import"),
    "train/o.py": ("class A:\n    print('hello')\n", "calls print() at import"),
    "train/p.py": ("def f(x=open('y')):\n    pass\n", "calls open() at import"),
}
GOOD = {
    "emosym/cli/bank.py": "import typer\nimport memory_bank, data_tools, model_zoo\n",
    "emosym/inference/lazy.py": (
        "import importlib\ndef f(x):\n    return importlib.import_module(x)\n"
    ),
    "emosym/near.py": "from . import other\nfrom emosym.errors import UserError\nimport torch\n",
    "data_tools/__main__.py": "import model_zoo\n",
    "eval/a.py": "import emosym, model_zoo, memory_bank, data_tools\n",
    "train/b.py": "import deepspeed, eval\ndef f():\n    print(open('x'))\n",
    "train/c.py": "import os\nDEBUG = os.environ.get('DEBUG')\nread = lambda p: open(p)\n",
    "train/__main__.py": "if __name__ == '__main__':\n    print('hello')\n",
    "memory_bank/d.py": "import faiss\n",
}


def _write(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("name", BAD)
def test_the_checker_finds(tmp_path, name):
    text, rule = BAD[name]
    _write(tmp_path, name, text)
    line = 1 if rule == "a vague module name" else len(text.splitlines())
    if name == "train/p.py":
        line = 1
    assert violations(tmp_path) == [f"{name}:{line}: {rule}"]


def test_the_checker_leaves_good_code_alone(tmp_path):
    for name, text in GOOD.items():
        _write(tmp_path, name, text)
    assert violations(tmp_path) == []
