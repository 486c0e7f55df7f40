"""Which module of featurebank imports which, imports inside functions included, and the circles among them."""

import ast
from pathlib import Path


def import_graph(root: Path) -> dict[str, set[str]]:
    """Return what each module below a package's folder imports of the others; packages stand for their ``__init__``."""
    files = sorted(root.rglob("*.py"))
    names = {".".join(("featurebank", *file.relative_to(root).with_suffix("").parts)): file for file in files}
    names = {name.removesuffix(".__init__"): file for name, file in names.items()}
    graph = {}
    for name, file in names.items():
        nodes = [
            node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom))
        ]
        asked = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                asked |= {each if each in names else node.module for each in inner}
        graph[name] = (asked & set(names)) - {name, "featurebank"}
    return graph


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Return the groups of modules that import each other (strongly connected, by what each reaches)."""
    reached = {}
    for name in graph:
        seen: set[str] = set()
        todo = [name]
        while todo:
            fresh = graph[todo.pop()] - seen
            seen |= fresh
            todo += fresh
        reached[name] = seen
    groups = {frozenset(other for other in reached[name] if name in reached[other]) for name in graph}
    return [set(group) for group in groups if group]
