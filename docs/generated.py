"""What is made when the site is built: the notebooks, a picture of each, and a page for each command from its help."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

import click
from sphinx.application import Sphinx

from featurebank_cli import SECTIONS

_OPTION = ".. option::"


def copy_notebooks(notebooks: Path, folder: Path) -> None:
    """Copy the notebooks with their outputs, and beside each its last picture."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(notebooks, folder, ignore=shutil.ignore_patterns("*.py", ".*"))
    for file in folder.glob("*.ipynb"):
        cells = json.loads(file.read_text())["cells"]
        data = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
        pictures = [each["image/png"] for each in data if "image/png" in each]
        file.with_suffix(".png").write_bytes(base64.b64decode("".join(pictures[-1])))


def write_commands(folder: Path) -> None:
    """Write a page for each command, and one that lists them under their headings."""
    folder.mkdir(parents=True, exist_ok=True)
    for command in (command for commands in SECTIONS.values() for command in commands):
        _show_defaults(command)
        module = command.callback.__module__
        attribute = next(key for key, value in vars(__import__(module, fromlist=["x"])).items() if value is command)
        directive = f".. click:: {module}:{attribute}\n   :prog: featurebank {command.name}\n"
        (folder / f"{command.name}.rst").write_text(directive)
    lists = [_toctree(title, [command.name for command in commands]) for title, commands in SECTIONS.items()]
    (folder / "index.md").write_text("\n".join([_FIRST, *lists]))


_FIRST = """# Commands

Each page is the command's `--help`. Before the name of a command, `--quiet` prints results and errors only,
`--verbose` also the warnings of the libraries underneath; `featurebank --version` prints the version.
"""


def _show_defaults(command: click.Command) -> None:
    """Show the defaults that the group's settings show on the terminal."""
    for option in command.params:
        if isinstance(option, click.Option) and option.show_default is None:
            option.show_default = isinstance(option.default, (str, int, float)) and not option.is_flag


def _toctree(title: str, names: list[str]) -> str:
    lines = "\n".join(f"{name} <{name}>" for name in names)
    return f"## {title}\n\n```{{toctree}}\n:maxdepth: 1\n\n{lines}\n```\n"


def read_help(app: Sphinx) -> None:
    """Have sphinx-click take descriptions and options as the terminal shows them."""
    app.connect("sphinx-click-process-description", _describe)
    app.connect("sphinx-click-process-options", _group)


def _describe(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Give a description as prose, and its blocks that keep their lines (an example) as code."""
    lines.clear()
    for paragraph in cleandoc(context.command.help or "").split("\n\n"):
        if not paragraph.startswith("\b"):
            lines += [*_escaped(paragraph).splitlines(), ""]
            continue
        title, *rest = paragraph.splitlines()[1:]
        lines += [
            _escaped(title),
            "",
            ".. code-block:: shell",
            "",
            *indent(dedent("\n".join(rest)), "   ").splitlines(),
            "",
        ]


def _group(app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Put the options under the headings that the terminal shows."""
    command: Any = context.command
    shown = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    texts = dict(zip((each.name for each in shown), _parts(lines), strict=True))
    groups = [*command.option_groups, command.get_default_option_group(context)]
    lines.clear()
    for group in groups:
        names = [option.name for option in group.options if option.name in texts]
        if names and len(command.option_groups):
            lines += [f".. rubric:: {group.title}", ""]
        for name in names:
            lines += texts[name]


def _parts(lines: list[str]) -> Iterator[list[str]]:
    """Yield the lines of each option, their help escaped."""
    starts = [number for number, line in enumerate(lines) if line.startswith(_OPTION)]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield [line if line.lstrip().startswith((_OPTION, ":")) else _escaped(line) for line in lines[start:end]]


def _escaped(text: str) -> str:
    """Return plain text as reStructuredText, its `code` as such."""
    pieces = re.split(r"`([^`]+)`", text)
    return "".join(
        f"``{piece}``" if number % 2 else re.sub(r"([*_|\\])", r"\\\1", piece) for number, piece in enumerate(pieces)
    )
