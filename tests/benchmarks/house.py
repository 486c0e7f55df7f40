"""The house in numbers, of this checkout and of others named on the command line, side by side.

    python tests/benchmarks/house.py [CHECKOUT ...]

Code lines are those without docstrings, comments, blank lines and imports. Records are data classes and named tuples.
Circles are groups of modules that import each other, imports inside functions included. Modules loaded are those of
featurebank itself that ``import`` of the module with `fit` brings along.
"""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from import_graph import circles, import_graph

HERE = Path(__file__).resolve().parents[2]
FIT_MODULES = ("fitting/fit.py", "fitting.py")
_SILENT = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def measure(checkout: Path) -> dict[str, object]:
    """Return the figures of one checkout by their names."""
    root = checkout / "featurebank"
    trees = {file: ast.parse(file.read_text()) for file in sorted(root.rglob("*.py"))}
    functions = [(length(node), name) for file, tree in trees.items() for name, node in functions_of(tree, file.stem)]
    entries = [entry for entry in root.iterdir() if entry.name != "__pycache__"]
    return {
        "entries of featurebank/": len(entries),
        "files": len(trees),
        "lines": sum(len(file.read_text().splitlines()) for file in trees),
        "code lines": sum(code_lines(file.read_text()) for file in trees),
        "code lines of cli/": sum(code_lines(file.read_text()) for file in (checkout / "cli").glob("*.py")),
        "longest file": max((len(file.read_text().splitlines()), str(file.relative_to(root))) for file in trees),
        "modules loaded by fit": modules_loaded(checkout),
        "records": sum(is_record(node) for tree in trees.values() for node in ast.walk(tree)),
        "public names without docstring": sum(len(undocumented(tree)) for tree in trees.values()),
        "longest function": max(functions),
        "circles of modules": len(circles(import_graph(root))),
    }


def code_lines(text: str) -> int:
    """Count the lines that hold code: no docstring, comment, blank line or import."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _SILENT:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Import, ast.ImportFrom)) or is_text(node):
            lines -= set(range(node.lineno, (node.end_lineno or 0) + 1))
    return len(lines)


def is_text(node: ast.AST) -> bool:
    """Say whether a node is a docstring, of a function or of a name."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def functions_of(tree: ast.Module, stem: str) -> list[tuple[str, ast.FunctionDef]]:
    """Return the functions and methods of a module with a name to find them by."""
    return [(f"{stem}:{node.name}", node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def length(function: ast.FunctionDef) -> int:
    """Count a function's lines without its docstring."""
    first = function.body[0]
    doc = ast.get_docstring(function, clean=False)
    documented = (first.end_lineno or 0) - first.lineno + 1 if doc is not None else 0
    return (function.end_lineno or 0) - function.lineno + 1 - documented


def is_record(node: ast.AST) -> bool:
    """Say whether a node is a data class or a named tuple."""
    if not isinstance(node, ast.ClassDef):
        return False
    names = [ast.unparse(each) for each in (*node.decorator_list, *node.bases)]
    return any(name.startswith("dataclass") or name == "NamedTuple" for name in names)


def undocumented(tree: ast.Module) -> list[str]:
    """Return the public classes, functions and methods of a module that have no docstring."""
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    kinds = (ast.ClassDef, ast.FunctionDef)
    found = [node for body in bodies for node in body if isinstance(node, kinds) and not node.name.startswith("_")]
    found = [node for node in found if "overload" not in map(ast.unparse, node.decorator_list)]
    return [node.name for node in found if ast.get_docstring(node) is None]


def modules_loaded(checkout: Path) -> int:
    """Count the modules of featurebank that importing the module of `fit` loads, in a process of its own."""
    file = next(name for name in FIT_MODULES if (checkout / "featurebank" / name).is_file())
    module = "featurebank." + file.removesuffix(".py").replace("/", ".")
    code = f"import sys, {module}; print(sum(n.split('.')[0] == 'featurebank' for n in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, env={"PYTHONPATH": str(checkout)}, text=True,
                          capture_output=True, check=True)  # fmt: skip
    return int(done.stdout)


def main() -> None:
    """Print the figures of each checkout, a column each; this one comes last."""
    checkouts = [*map(Path, sys.argv[1:]), HERE]
    columns = [measure(checkout.resolve()) for checkout in checkouts]
    print(f"{'':32}" + "".join(f"{checkout.resolve().name:>34}" for checkout in checkouts))
    for name in columns[0]:
        cells = [column[name] for column in columns]
        shown = [f"{cell[0]} {cell[1]}" if isinstance(cell, tuple) else f"{cell:,}" for cell in cells]
        print(f"{name:32}" + "".join(f"{text:>34}" for text in shown))


if __name__ == "__main__":
    main()
