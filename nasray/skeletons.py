"""Signatures of classes whose modules are slow to import, from the source of the module.

A detector's module imports PyTorch and torchvision, which takes seconds; to read a recipe, its constructor's keywords,
their types and the docstring do. `skeleton` makes a class that has these and nothing else, for `nasray.signatures`.
"""

from __future__ import annotations
import __future__

import ast
import builtins
import functools
import importlib
import importlib.util
from typing import Any


@functools.cache
def skeleton(target: str, given: frozenset[str]) -> type | None:
    """Return a class with docstring, bases and constructor signature of another; None where the source does not say it.

    Modules are imported for the types and defaults of options alone. Bases from outside of nasray are left out.

    Args:
        target: "module:Class" of nasray.
        given: Parameters that are no options: their types stay unread.
    """
    module, _, name = target.partition(":")
    spec = importlib.util.find_spec(module)
    source = getattr(spec and spec.loader, "get_source", lambda _: None)(module)
    if source is None:
        return None
    return _Source(module, ast.parse(source), given).make(name)


class _Source:
    """A module's source: its classes, imports and assignments, by name."""

    def __init__(self, module: str, tree: ast.Module, given: frozenset[str]) -> None:
        self.module, self.given = module, given
        self.classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        self.imports = {
            alias.asname or alias.name: (node.module or "", alias.name)
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.level == 0
            for alias in node.names
        }
        self.values = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        self.names: dict[str, Any] = {"__name__": module, "__builtins__": builtins}

    def make(self, name: str) -> type | None:
        """Return the skeleton of a class; None if there is none of this name."""
        node = self.classes.get(name)
        if node is None:
            return None
        found = [body for body in node.body if isinstance(body, ast.FunctionDef) and body.name == "__init__"]
        for construct in found:
            arguments = construct.args
            for argument in (*arguments.args, *arguments.kwonlyargs):
                if argument.annotation is not None and argument.arg not in self.given:
                    self.read(argument.annotation)
            for default in (*arguments.defaults, *filter(None, arguments.kw_defaults)):
                self.read(default)
            construct.body, construct.decorator_list = [ast.Pass()], []
        bases = []
        for number, base in enumerate(node.bases):
            made = self.base(base)
            if made is not None:
                self.names[f"_base_{number}"] = made
                bases.append(ast.Name(f"_base_{number}", ast.Load()))
        document = [node.body[0]] if ast.get_docstring(node) is not None else []
        body: list[ast.stmt] = [*document, *found] or [ast.Pass()]
        made_node = ast.ClassDef(name=name, bases=list(bases), keywords=[], body=body, decorator_list=[])
        tree = ast.fix_missing_locations(ast.Module([made_node], []))
        flags = __future__.annotations.compiler_flag
        exec(compile(tree, self.module, "exec", flags=flags, dont_inherit=True), self.names)
        made_class: type = self.names[name]
        return made_class

    def base(self, node: ast.expr) -> type | None:
        """Return the skeleton of a base; None for one from outside of nasray."""
        if not isinstance(node, ast.Name):
            return None
        if node.id in self.classes:
            return skeleton(f"{self.module}:{node.id}", self.given)
        module, name = self.imports.get(node.id, ("", ""))
        return skeleton(f"{module}:{name}", self.given) if module.startswith("nasray.") else None

    def read(self, node: ast.expr) -> None:
        """Find what the names in an expression stand for; those not found are left to whoever asks for them."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and inner.id not in self.names:
                if inner.id in self.imports:
                    module, name = self.imports[inner.id]
                    self.names[inner.id] = getattr(importlib.import_module(module), name)
                elif inner.id in self.values:
                    value = self.values[inner.id]
                    self.read(value)
                    self.names[inner.id] = eval(compile(ast.Expression(value), self.module, "eval"), self.names)
