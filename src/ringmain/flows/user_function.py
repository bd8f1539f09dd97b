"""Finds a user's function: in a file beside the configuration, in an installed module, or by an entry point.

    steps.py:smooth                   function `smooth` in a file, relative to the configuration file
    utility.steps:smooth              in an importable module
    smooth                            the entry point of that name in group `ringmain.steps`

Looking for it reads its source and runs nothing, so that a configuration can be checked anywhere; `load` runs the
module. A hash of the module's source is part of the flow's definition: a changed function is another definition. (What
that module imports is not looked at.)
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from ringmain.flows.step import PlanError

GROUP = "ringmain.steps"
_SOURCE_BYTES_MAX = 16 * 1024 * 1024
_FILE = re.compile(r"(.+\.py):([A-Za-z_]\w*)")
_MODULE = re.compile(r"([A-Za-z_][\w.]*):([A-Za-z_]\w*)")


@dataclass(frozen=True, slots=True)
class UserFunction:
    """A function that was found. `module`: None for one in a file of its own."""

    text: str
    path: Path
    module: str | None
    name: str
    parameters: int
    """How many it is given: 2 (rows, state), or 3 with log time."""
    source_hash: str
    """SHA-256 of the file, in hexadecimal."""

    def load(self) -> Callable[..., Any]:
        """The function itself; runs its module. What the module raises goes through, but nothing that ends a thread."""
        try:
            if self.module is not None:
                module = importlib.import_module(self.module)
            else:
                module = _module_of(self.path, self.source_hash)
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            raise ImportError(f"{self.text}: the module ends with {type(error).__name__}") from error
        found = getattr(module, self.name, None)
        if not callable(found):
            raise TypeError(f"{self.text}: expected a function {self.name!r}, found {type(found).__name__}")
        function: Callable[..., Any] = found
        return function


def find_function(text: str, directory: Path) -> UserFunction:
    """The function that a setting names. Raises PlanError with key `function`."""
    module: str | None = None
    if match := _FILE.fullmatch(text):
        path, name = directory / match[1], match[2]
        if not path.is_file():
            raise PlanError("function", f"no such file: {path}")
    else:
        match = _MODULE.fullmatch(text) or _entry_point(text)
        module, name = match[1], match[2]
        path = _source_of(module, text)
    try:
        if path.stat().st_size > _SOURCE_BYTES_MAX:
            raise PlanError("function", f"{path}: expected a source file, found more than 16 MiB")
        source = path.read_bytes()
        tree = ast.parse(source, str(path))
    except OSError as error:
        raise PlanError("function", f"{path}: cannot be read: {error.strerror or error}") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None)
        raise PlanError(
            "function", f"{path}{f':{line}' if line else ''}: not valid Python: {error}"
        ) from None
    parameters = _parameters(tree, name, path, imported=module is not None)
    return UserFunction(text, path, module, name, parameters, hashlib.sha256(source).hexdigest())


def _entry_point(text: str) -> re.Match[str]:
    points = {point.name: point.value for point in entry_points(group=GROUP)}
    match = _MODULE.fullmatch(points.get(text, ""))
    if match is None:
        known = f"; installed are {', '.join(sorted(points))}" if points else ""
        raise PlanError(
            "function",
            f"expected FILE.py:FUNCTION, MODULE:FUNCTION or the name of an entry point of group {GROUP}, "
            f"found {text!r}{known}",
        )
    return match


def _source_of(module: str, text: str) -> Path:
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError) as error:
        raise PlanError("function", f"no module {module!r} for {text!r}: {error}") from None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        raise PlanError(
            "function", f"no module {module!r} with a source file for {text!r}: is its package installed?"
        )
    return Path(spec.origin)


def _parameters(tree: ast.Module, name: str, path: Path, *, imported: bool) -> int:
    functions = {
        node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    function = functions.get(name)
    if function is None:
        if imported and name in _names(tree):
            return 2
        known = f"; it has {', '.join(sorted(functions))}" if functions else ""
        raise PlanError("function", f"{path}: no function {name!r}{known}")
    if isinstance(function, ast.AsyncFunctionDef):
        raise PlanError(
            "function", f"{path}:{function.lineno}: expected a plain function, found `async def {name}`"
        )
    arguments = function.args
    count = len(arguments.posonlyargs) + len(arguments.args)
    needed = count - len(arguments.defaults)
    if not needed <= 3 or count < 2 or any(default is None for default in arguments.kw_defaults):
        raise PlanError(
            "function",
            f"{path}:{function.lineno}: expected `def {name}(rows, state)` or `def {name}(rows, state, now_ns)`, "
            f"found {count} parameters",
        )
    return 3 if count >= 3 else 2


def _names(tree: ast.Module) -> set[str]:
    """What a module imports or assigns at its top."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


def _module_of(path: Path, source_hash: str) -> ModuleType:
    """A fresh module out of a file, under a name that no other file has; its directory is not searched for others."""
    name = f"ringmain_user_step_{path.stem}_{source_hash[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module
