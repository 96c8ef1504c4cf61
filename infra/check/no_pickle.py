"""Refuses pickle, and whatever reads or writes one, in code that touches weights, checkpoints, stores or requests.

    python -m infra.check.no_pickle [FILE ...]

A pickle runs the code that is in it when it is read. Whoever can write to a store could run code on every machine that
trains from it, so files are SafeTensors, JSON, Parquet or plain numpy, and ranks send each other JSON.

`stages/corpus` is left out: its processes hand pickled functions to each other (Ray's and `multiprocessing`'s way),
which one user's processes on one machine or cluster do over pipes; no file of a store is read that way.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from infra.settings import REPOSITORY

FOLDERS = ("flows", "infra", "models", "serving", "stages")
LEFT_OUT = "stages/corpus"

_MODULES = ("pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "torch.distributed.checkpoint")
_NAMES = {
    "torch.load": "load SafeTensors (`models.huggingface.load_weights`)",
    "torch.save": "write SafeTensors (`models.huggingface.save_weights`)",
    "yaml.full_load": "use yaml.safe_load",
    "yaml.full_load_all": "use yaml.safe_load_all",
    "yaml.unsafe_load": "use yaml.safe_load",
    "yaml.unsafe_load_all": "use yaml.safe_load_all",
    "pandas.read_pickle": "use Parquet",
}
_JSON = "ranks exchange JSON: `Ranks.all_gather_json`, `Ranks.broadcast_json`"
_LAST_NAMES = {
    **dict.fromkeys(("all_gather_object", "broadcast_object", "broadcast_object_list", "gather_object"), _JSON),
    **dict.fromkeys(("scatter_object_list", "send_object_list", "recv_object_list"), _JSON),
    "to_pickle": "use Parquet",
}
"""Refused whatever they are taken from: process groups are passed around under any name."""
_SAFE_LOADERS = ("yaml.SafeLoader", "yaml.CSafeLoader")
_NUMPY = "pass allow_pickle=False"
_YAML = "use yaml.safe_load, or pass yaml.SafeLoader"


def main(arguments: Sequence[str]) -> int:
    """Looks at files (all of `FOLDERS` if none are given), prints what is refused, and returns the exit code."""
    files = [Path(name) for name in arguments] or [
        path
        for folder in FOLDERS
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        if not path.is_relative_to(REPOSITORY / LEFT_OUT)
    ]
    found = [f"{path}:{line}" for path in files for line in find_pickles(path.read_text(encoding="utf-8"), str(path))]
    print(*found, sep="\n")
    return 1 if found else 0


def find_pickles(source: str, name: str = "<source>") -> Iterator[str]:
    """What is refused in a module, by line: `LINE: what, and what to do instead`.

    Raises:
        SyntaxError: it is not Python.
    """
    tree = ast.parse(source, name)
    names = _imported_names(tree)
    safe = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_safe(node, names)}
    found = [
        (node.lineno, problem)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Call, ast.Name, ast.Attribute)) and id(node) not in safe
        for problem in _problems(node, names)
    ]
    for line, problem in sorted(set(found)):
        yield f"{line}: {problem}"


def _problems(
    node: ast.Import | ast.ImportFrom | ast.Call | ast.Name | ast.Attribute, names: dict[str, str]
) -> Iterator[str]:
    if isinstance(node, ast.Import):
        used = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        used = [f"{node.module}.{alias.name}" for alias in node.names] if node.module and not node.level else []
    elif isinstance(node, ast.Call):
        used = _imported_by_call(node, names)
    else:
        used = [_full_name(node, names)]
    for name in used:
        module = next((module for module in _MODULES if name == module or name.startswith(f"{module}.")), "")
        if module:
            yield f"{module} is refused: a pickle runs code when it is read; use SafeTensors or JSON"
        elif name in _NAMES:
            yield f"{name} is refused: it goes through pickle; {_NAMES[name]}"
        elif (last := name.rpartition(".")[2]) in _LAST_NAMES:
            yield f"{last} is refused: it goes through pickle; {_LAST_NAMES[last]}"
        elif isinstance(node, (ast.Name, ast.Attribute)) and name in ("numpy.load", "yaml.load", "yaml.load_all"):
            yield f"{name} is refused as it stands: it may run code; {_NUMPY if name == 'numpy.load' else _YAML}"


def _imported_by_call(node: ast.Call, names: dict[str, str]) -> list[str]:
    """The module that `import_module("...")` imports."""
    function = _full_name(node.func, names)
    first = node.args[0] if node.args else None
    if function in ("importlib.import_module", "__import__") and isinstance(first, ast.Constant):
        return [str(first.value)]
    return []


def _is_safe(call: ast.Call, names: dict[str, str]) -> bool:
    """Whether a call is one of numpy's or yaml's with the argument that keeps it from running code."""
    function = _full_name(call.func, names)
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    if function == "numpy.load":
        value = keywords.get("allow_pickle")
        return isinstance(value, ast.Constant) and value.value is False
    if function in ("yaml.load", "yaml.load_all"):
        loader = keywords.get("Loader") or (call.args[1] if len(call.args) > 1 else None)
        return loader is not None and _full_name(loader, names) in _SAFE_LOADERS
    return False


def _imported_names(tree: ast.AST) -> dict[str, str]:
    """What names mean that are imported anywhere in the module: `np` is `numpy`, `load` after `from torch` is
    `torch.load`."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                names[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _full_name(node: ast.AST, names: dict[str, str]) -> str:
    """The dotted name of an expression by what was imported; `?` stands for what is not a name."""
    if isinstance(node, ast.Attribute):
        return f"{_full_name(node.value, names)}.{node.attr}"
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    return "?"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
