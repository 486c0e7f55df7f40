"""What to do next: the commands that bring missing rows, sources that are no longer there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from featurebank.bank import samples
from featurebank.bank.features import FeatureSet, as_keys
from featurebank.bank.folder import BankFolder
from featurebank.bank.request import StoredRequest
from featurebank.bank.samples import SampleTable
from featurebank.bank.spec import FeatureSpec
from featurebank.errors import counted, shell_command
from featurebank.images.tables import MANIFESTS
from featurebank.storage.objects import is_address

SOURCES_SHOWN = 3


# --- sources -----------------------------------------------------------------------------------------------


def is_missing(source: str, root: str) -> bool:
    """Say whether the files of a source are no longer where they were; of a list, images in memory and a store, never.

    Parameters
    ----------
    source : str
        Its key: the absolute path of a folder or manifest, or another name.
    root : str
        Folder that its paths were last relative to.

    Examples
    --------
    >>> is_missing("/no/such/folder", "/no/such/folder"), is_missing("memory", "")
    (True, False)
    """
    if not os.path.isabs(source) or is_address(root):
        return False
    is_one_file = source != root and Path(source).suffix.lower() in MANIFESTS and "{" not in source
    return not os.path.isdir(root) or (is_one_file and not os.path.exists(source))


def is_named(source: str) -> bool:
    """Say whether a source is one that a command can name: a path or an address, no list and no images in memory."""
    return os.path.isabs(source) or is_address(source)


def roots(table: SampleTable) -> dict[str, str]:
    """Return the folder that the files of each source were last found in."""
    rows = table.rows.sort_values("stamp", kind="stable")
    return dict(zip(rows["source"], rows["root"], strict=True))


def about_missing_sources(
    bank: BankFolder, table: SampleTable, source: str, root: str, contents: set[bytes], specs: Sequence[FeatureSpec]
) -> list[str]:
    """Say which other sources are no longer there, or are this one under another name, and what that spoils.

    That is: their samples count twice, or can get no row any more.

    Parameters
    ----------
    bank : BankFolder
    table : SampleTable
        The bank's samples.
    source, root : str
        The source that was just extracted, and the folder of its files.
    contents : set of bytes
        The digests of its readable samples.
    specs : sequence of FeatureSpec
        The feature sets that were asked for.

    Returns
    -------
    list of str
        A line for each such source, with the commands that help.
    """
    other = table.take(((table.rows["status"] == samples.OK) & (table.rows["source"] != source)).to_numpy())
    notes = []
    for name, last in roots(other).items():
        digests = list(other.rows["digest"][other.rows["source"] == name])
        again = _again(digests, source, contents)
        drop = f"`{prune_command(bank, name)}` drops them"
        if is_missing(name, last):
            facts = again + _without_rows(bank, digests, specs)
            own = counted(len(digests), "sample still counts", "samples still count")
            what = f"{name!r} is no longer there, yet its {own}"
            drop += f" (a folder that moves keeps its name and labels with `{moved_command(bank, name, root)}`)"
        else:
            facts = again if root and last == root else []
            own = counted(len(digests), "sample counts", "samples count")
            what = f"{name!r} has its files in the same folder, and its {own} too"
        notes += [f"{what}, {' and '.join(facts)}: {drop}"] if facts else []
    return notes


def _again(digests: list[bytes], source: str, contents: set[bytes]) -> list[str]:
    """Say how many samples another source has as well, when they are at least half of its contents."""
    shared = sum(digest in contents for digest in digests)
    return [f"{shared} of them again in {source!r}"] if contents and 2 * shared >= len(contents) else []


def _without_rows(bank: BankFolder, digests: list[bytes], specs: Sequence[FeatureSpec]) -> list[str]:
    """Say how many samples have no row in each feature set."""
    absent = [(spec, bank.missing(spec, digests)) for spec in specs]
    counts = [(spec, sum(digest in lost for digest in digests)) for spec, lost in absent]
    return [f"{count} of them without a row in {spec.name!r}" for spec, count in counts if count]


# --- rows --------------------------------------------------------------------------------------------------


def missing_rows(bank: BankFolder, each: FeatureSet, table: SampleTable) -> str:
    """Return how many samples of a table have no row in a feature set, and the commands that help; empty for none."""
    absent = each.find(as_keys(table.rows["digest"])) < 0
    if not absent.any():
        return ""
    if each.spec.origin is not None:
        return (
            f"{int(absent.sum())} of {len(absent)} samples have no row in {each.name!r}: {each.spec.about_origin}; "
            "import a file that has them, or choose other sets with --features"
        )
    lacking = Counter(table.rows["source"][absent])
    where = roots(table)
    ways = [_way(bank, each.spec, name, where[name], count) for name, count in lacking.most_common(SOURCES_SHOWN)]
    more = len(lacking) - len(ways)
    ways += [f"and alike for {counted(more, 'more source')}"] if more else []
    return (
        f"{int(absent.sum())} of {len(absent)} samples have no row in {each.name!r}: {'; '.join(ways)}; "
        "or choose other sets with --features"
    )


def _way(bank: BankFolder, spec: FeatureSpec, source: str, root: str, count: int) -> str:
    """Return how the rows that one source lacks are made, or what to do when its files are not there."""
    if not is_named(source) or StoredRequest.readable(bank, spec) is None:
        views = f", views={spec.views!r}" if spec.views != "none" else ""
        views += f", framing={framing!r}" if (framing := spec.preprocessing.get("framing")) else ""
        return (
            f"extract {source!r} again from Python with layers={spec.layer_name!r}{views} ({counted(count, 'sample')})"
        )
    if not is_missing(source, root):
        return f"run `{extract_command(bank, spec, source, root_to_name(source, root))}` ({counted(count, 'sample')})"
    return (
        f"{source!r} ({counted(count, 'sample')}) is no longer there, "
        f"run `{extract_command(bank, spec, source, 'FOLDER')}` if it moved, `{prune_command(bank, source)}` if not"
    )


# --- commands ----------------------------------------------------------------------------------------------


def extract_command(
    bank: BankFolder, spec: FeatureSpec, source: str, root: str = "", layers: Sequence[str] | None = None
) -> str:
    """Return the command that embeds a source for a feature set, as it was last asked for, or for other layers."""
    request = StoredRequest.readable(bank, spec) or StoredRequest.of_set({}, spec)
    named = bank.named_options(source)
    return replace(request, layers=layers or request.layers).command(source, bank.path, root, named)


def prune_command(bank: BankFolder, source: str) -> str:
    """Return the command that drops the samples of a source."""
    return shell_command("prune", bank.path, [("--source", source)])


def moved_command(bank: BankFolder, source: str, root: str = "") -> str:
    """Return the command that goes on with a source whose files lie elsewhere now."""
    options = {"--bank": bank.path, **bank.named_options(source), "--root": root or "FOLDER"}
    return shell_command("extract", source, options.items())


def root_to_name(source: str, root: str) -> str:
    """Return the folder of a source's files where a command has to name it, and nothing where its name tells."""
    return "" if root in (source, os.path.dirname(source)) else root
