"""Modules of nasray as source that needs no nasray: what they import from it is written into them."""

from __future__ import annotations

import ast
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path


def standalone_source(module: str) -> str:
    """Return the source of a module's definitions, before each those of nasray's other modules that it uses.

    A module that imports nothing from nasray is returned as it is written, but for its docstring.

    Args:
        module: Name of the module. It imports names of nasray's modules, not the modules.

    Raises:
        ValueError: if two modules define the same name differently, or a module is imported as a whole.
    """
    own = _Module.read(module)
    if not own.foreign:
        return own.source[own.source.index("from __future__") :]
    collected = _Collected()
    for name in own.definitions:
        collected.add(module, name)
    imports = sorted(collected.imports, key=lambda line: (line.startswith("from"), line))
    head = "\n".join(["from __future__ import annotations", "", *imports])
    return "\n\n\n".join([head, *collected.texts]) + "\n"


@dataclass(frozen=True)
class _Module:
    """What stands at the top level of a module.

    Attributes:
        source: Its text.
        definitions: Statement that defines each name, in their order, and the docstring behind it.
        imports: Line that imports each name from outside of nasray.
        foreign: Module and name there of each name that is imported from nasray.
    """

    source: str
    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, str]
    foreign: dict[str, tuple[str, str]]

    @classmethod
    def read(cls, name: str) -> _Module:
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.origin is not None
        source = Path(spec.origin).read_bytes().decode()
        found = cls(source, {}, {}, {})
        before: list[ast.stmt] = []
        for statement in ast.parse(source).body:
            if isinstance(statement, ast.ImportFrom | ast.Import):
                found._import(statement)
            elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
                before = found.definitions[statement.name] = [statement]
            elif isinstance(statement, ast.Assign | ast.AnnAssign):
                before = [statement]
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                for node in (node for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)):
                    found.definitions[node.id] = before
            elif isinstance(statement, ast.Expr) and before:
                before.append(statement)  # a text below a constant
        return found

    def _import(self, statement: ast.ImportFrom | ast.Import) -> None:
        for alias in statement.names:
            bound = alias.asname or alias.name.partition(".")[0]
            if isinstance(statement, ast.Import):
                self.imports[bound] = ast.unparse(ast.Import([alias]))
            elif str(statement.module).partition(".")[0] == "nasray":
                if bound != alias.name:
                    raise ValueError(f"{alias.name} of {statement.module} is imported as {bound}: use its own name")
                self.foreign[bound] = (str(statement.module), alias.name)
            elif statement.module != "__future__":
                self.imports[bound] = ast.unparse(ast.ImportFrom(statement.module, [alias], 0))

    def text(self, name: str) -> str:
        """Return the text of a definition, its decorators and the docstring behind it included."""
        statements = self.definitions[name]
        first = statements[0]
        decorators = getattr(first, "decorator_list", [])
        begin = min([first.lineno, *(decorator.lineno for decorator in decorators)])
        return "\n".join(self.source.splitlines()[begin - 1 : statements[-1].end_lineno])


@dataclass
class _Collected:
    """Definitions of several modules, each behind those that it uses.

    Attributes:
        modules: Modules that were read.
        texts: Texts of the definitions.
        imports: Lines that import from outside of nasray.
        owners: Module of each name that is defined.
    """

    modules: dict[str, _Module] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    imports: set[str] = field(default_factory=set)
    owners: dict[str, str] = field(default_factory=dict)

    def add(self, module: str, name: str) -> None:
        """Add a definition of a module, if it is not there yet, behind what it uses."""
        if module not in self.modules:
            self.modules[module] = _Module.read(module)
        own = self.modules[module]
        if name in own.foreign:  # it is imported there in turn
            self.add(*own.foreign[name])
            return
        if name not in own.definitions:
            raise ValueError(f"{module} defines no {name}: a module is imported by its names, not as a whole")
        if self.owners.get(name, module) != module:
            raise ValueError(f"{name} is defined in {self.owners[name]} and in {module}")
        if name in self.owners:
            return
        statements = own.definitions[name]
        for other in (other for other, found in own.definitions.items() if found is statements):
            self.owners[other] = module
        nodes = [node for statement in statements for node in ast.walk(statement)]
        for used in dict.fromkeys(node.id for node in nodes if isinstance(node, ast.Name)):
            if used in own.imports:
                self.imports.add(own.imports[used])
            elif used in own.foreign or used in own.definitions:
                self.add(module, used)
        self.texts.append(own.text(name))
