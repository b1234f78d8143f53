"""What code a command runs: the modules that it imports, and a fingerprint of their syntax.

Read from the source alone, nothing is imported: a command's module is parsed, and each module that it imports at any
depth, inside functions too. Comments, docstrings, blank lines and imports for type checkers leave no trace.

A *registry* finds modules by itself (`importlib.import_module`, `pkgutil.iter_modules`): all modules of its package
count as imported. Of a package whose modules each register one entry, `Entries` picks the one that a command uses.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

#: Names whose presence makes a module a registry.
_DYNAMIC = {"import_module", "iter_modules"}


@dataclass(frozen=True)
class Entries:
    """Of the package `package`, only the modules that register `name` by `@decorator("name", ...)` are followed, those
    that register nothing, and those that call one of `makers`."""

    package: str
    decorator: str
    name: str = ""
    makers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Module:
    """A module of the package: its file, and its syntax without docstrings and imports for type checkers."""

    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        stripped = _Stripped().visit(ast.parse(self.path.read_bytes()))
        assert isinstance(stripped, ast.Module)
        return stripped

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def home(self) -> str:
        """The package that the module is, or stands in."""
        return self.name if self.is_package else self.name.rpartition(".")[0]

    @cached_property
    def is_dynamic(self) -> bool:
        """Whether the module may import what no import statement of it names."""
        nodes = ast.walk(self.tree)
        return any(getattr(n, "attr", getattr(n, "id", getattr(n, "name", ""))) in _DYNAMIC for n in nodes)

    @property
    def is_registry(self) -> bool:
        """Whether the module gathers what other modules register."""
        return self.is_dynamic or self.is_package or self.name.endswith(".registry")

    def registers(self, decorator: str) -> set[str]:
        """The names in `@decorator("name", ...)` (or a plain call) of this module."""
        names = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
                function = node.func
                if getattr(function, "id", getattr(function, "attr", None)) == decorator:
                    names.add(node.args[0].value)
        return names

    @cached_property
    def digest(self) -> str:
        """Of the syntax, written out again: the same for every version of Python that writes it alike."""
        return hashlib.sha256(ast.unparse(self.tree).encode()).hexdigest()


class SourceTree:
    """The modules below a folder that holds the package `name`."""

    def __init__(self, folder: Path, name: str = "kdleak"):
        self.folder, self.name = folder, name
        self._imported: dict[str, frozenset[str]] = {}
        self.modules = {module.name: module for module in _modules(folder, name)}

    def closure(self, entry: str, leave_out: Collection[str] = (), entries: Collection[Entries] = ()) -> list[Module]:
        """`entry` and every module that running it may import, sorted by name.

        leave_out: modules and packages that do not count, and are not followed. entries: of registries, what counts.
        """
        reached: dict[str, Module] = {}
        waiting = [entry]
        while waiting:
            module = self.modules[waiting.pop()]
            if module.name in reached or _within(module.name, leave_out):
                continue
            reached[module.name] = module
            imported = self._imports(module)
            waiting += [name for name in imported if not any(self._skipped(module, name, each) for each in entries)]
        return [reached[name] for name in sorted(reached)]

    def fingerprint(self, modules: Collection[Module]) -> str:
        """A line for each module and each file that is data beside one: its digest and its name."""
        lines = [f"{module.digest} {module.name}" for module in modules]
        lines += [f"{hashlib.sha256(f.read_bytes()).hexdigest()} {f.relative_to(self.folder).as_posix()}"
                  for f in self.data_files(modules)]  # fmt: skip
        return "".join(f"{line}\n" for line in lines)

    def data_files(self, modules: Collection[Module]) -> list[Path]:
        """Files that are no code, in the packages of `modules` and in folders below that are no packages."""
        packages = {module.path.parent for module in modules}
        return sorted({file for package in packages for file in _data_files(package)})

    def _imports(self, module: Module) -> frozenset[str]:
        """The modules of the package that `module` may import, and the packages they stand in."""
        if module.name not in self._imported:
            self._imported[module.name] = self._find_imports(module)
        return self._imported[module.name]

    def _find_imports(self, module: Module) -> frozenset[str]:
        direct = {name for name in _named(module.tree, module.home) if name in self.modules}
        if module.is_dynamic:
            direct |= {name for name in self.modules if name.startswith(f"{module.home}.")}
        above = {
            ".".join(name.split(".")[:n]) for name in direct | {module.name} for n in range(1, name.count(".") + 1)
        }
        # The package's own __init__ gives users a short way to what stands below; no stage runs it for what it does.
        return frozenset(((direct | above) & self.modules.keys()) - {self.name})

    def _skipped(self, importer: Module, name: str, entries: Entries) -> bool:
        """Whether `name` is an entry of a registry that the command does not use."""
        if not importer.is_registry or not name.startswith(f"{entries.package}."):
            return False
        module = self.modules[name]
        registered = module.registers(entries.decorator)
        kept = entries.name in registered or any(module.registers(maker) for maker in entries.makers)
        return bool(registered) and not kept


class _Stripped(ast.NodeTransformer):
    """Takes docstrings and `if TYPE_CHECKING:` away."""

    def visit(self, node: ast.AST) -> Any:  # a node, a list of nodes or None, as NodeTransformer takes them
        self.generic_visit(node)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if ast.get_docstring(node, clean=False) is not None:
                node.body = node.body[1:]
            node.body = node.body or [ast.Pass()]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in (
            getattr(node.test, "id", ""),
            getattr(node.test, "attr", ""),
        ):
            return node.orelse or None
        return node


def _modules(folder: Path, name: str) -> Iterator[Module]:
    for path in sorted((folder / name).rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        yield Module(".".join(parts[:-1] if parts[-1] == "__init__" else parts), path)


def _named(tree: ast.Module, home: str) -> Iterator[str]:
    """Every module that an import statement might mean."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = home.split(".")[: home.count(".") + 2 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _data_files(folder: Path) -> tuple[Path, ...]:
    files: list[Path] = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            files.append(path)
        elif path.is_dir() and path.name != "__pycache__" and not any(path.glob("*.py")):
            files += _data_files(path)
    return tuple(files)


def _within(name: str, packages: Collection[str]) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)
