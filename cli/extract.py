"""featurebank extract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option, option_group

from featurebank.errors import ImageError, counted, printable, shell_word
from featurebank_cli.exporting import keep_networks
from featurebank_cli.options import (
    PLACE,
    POSITIVE,
    backend_options,
    channels_option,
    device_option,
    framing_option,
    json_option,
    new_bank_option,
    pages_option,
    precision_option,
    range_option,
    root_option,
    size_option,
    store_option,
    strict_option,
    table_options,
    weights_option,
    workers_option,
)
from featurebank_cli.output import how_made, next_command, print_json
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.backbones.keeping import Network
    from featurebank.backbones.request import Request
    from featurebank.extraction.tracker import ExtractReport
    from featurebank.storage.files import AnyPath

SHOWN = 10
CLASSES_SHOWN = 6
TABLE = ("path_column", "separator", "encoding", "labels_as")
UNSEEN = 0.1
"""Share of the images that may stay unseen without a word."""
ASKED = ("weights", "size", "views", "store", "precision", "decoder", "framing")
COMPUTE = ("device", "engine", "batch_size", "workers", "backend", "ray_address")


@command()
@click.argument("source", type=PLACE)
@option_group(
    "What is embedded",
    new_bank_option,
    option(
        "--backbone",
        "backbones",
        multiple=True,
        default=["efficientnet_lite0"],
        help="See `featurebank backbones`; or the file of a fine-tuned predictor. Repeated, each image is read and "
        "decoded once for all.",
    ),
    option(
        "--layer",
        "layers",
        multiple=True,
        default=["penultimate"],
        help="LAYER[:POOL]; may be repeated. BACKBONE/LAYER is of one of several backbones.",
    ),
    weights_option,
    size_option,
    option(
        "--views",
        default="none",
        help="What is embedded beside each image itself: hflip, flips, dihedral (8 flips and quarter turns), or "
        "augment:K (K - 1 random changes, the same in every run).",
    ),
    framing_option,
    root_option,
)
@option_group("How a manifest is read", table_options)
@option_group(
    "How it is computed",
    device_option,
    precision_option("Compute dtype; bf16 and fp16 give other embeddings, and how far off they are is printed."),
    store_option("Stored dtype."),
    option(
        "--decoder",
        type=click.Choice(["pil", "tensor", "reduced", "nvjpeg"]),
        default="pil",
        help="tensor resizes images faster, reduced decodes large JPEG files faster, nvjpeg has a CUDA GPU do both; "
        "each gives slightly other embeddings.",
    ),
    range_option,
    pages_option,
    channels_option,
    option(
        "--engine",
        type=click.Choice(["auto", "eager", "compile", "onnx"]),
        default="auto",
        help="What runs the network; auto: ONNX Runtime for fp32 on a CPU, where it is installed.",
    ),
    option("--batch-size", type=POSITIVE, help="Images a forward pass.  [default: as memory allows]"),
    workers_option,
    *backend_options("ray: all GPUs, or cores, of this machine or of a Ray cluster that shares the files."),
)
@option_group(
    "What is checked and told",
    option("--verify", is_flag=True, help="Read and hash files again even when they look unchanged."),
    option("--explain", is_flag=True, help="Say what would be reused and computed, and why; compute nothing."),
    option("--estimate", is_flag=True, help="Time a sample of the images and say what all take; keep nothing."),
    strict_option,
)
@json_option
@click.pass_context
def extract(
    context: click.Context,
    source: AnyPath,
    bank: AnyPath,
    as_json: bool,
    strict: bool,
    explain: bool,
    estimate: bool,
    **options: Any,
) -> None:
    """Embed the images of SOURCE that the bank does not have yet.

    SOURCE is a folder of images or of class folders, a manifest (CSV, Parquet or JSON Lines with a column of paths),
    Parquet files with the images inside, one or a folder of them, or tar shards ('shard-{000..009}.tar'). SOURCE and
    the bank may lie on object storage (s3://bucket/photos).

    \b
    Example:
        featurebank extract photos/ --bank photos.bank --backbone resnet18 --layer layer3 --layer penultimate
    """
    from featurebank.bank.bank import Bank
    from featurebank.extraction.extract import run_extraction
    from featurebank.extraction.pipeline import Compute
    from featurebank.images.scanning import scan

    state: State = context.obj
    if explain and estimate:
        raise click.UsageError("give --explain or --estimate, not both")
    requests = _requests(options)
    if len(requests) > 1 and (explain or estimate):
        raise click.UsageError("--explain and --estimate look at one --backbone at a time")
    found = scan(source, root=options["root"], **{name: options[name] for name in TABLE})
    if explain:
        _explain(found, bank, requests[0], as_json)
        return
    compute = Compute(**{name: options[name] for name in COMPUTE})
    if estimate:
        _estimate(found, bank, requests[0], compute, as_json, state)
        return
    progress = state.progress("extract")
    report = run_extraction(found, Bank.create(bank), requests, compute, verify=options["verify"], progress=progress)
    listed = f"`featurebank info {shell_word(bank)} --failures` lists them"
    _tell(state, report, listed)
    if as_json:
        print_json(report.to_dict())
    else:
        _summary(report, bank)
    if report.failed == report.samples:
        raise ImageError(f"{report.about_failures()}; {listed}")
    if report.embedded and compute.backend == "local":
        keep_networks(state, _networks(requests, report, bank), bank, device=compute.device, engine=compute.engine)
    context.exit(1 if strict and report.failed else 0)


def _requests(options: dict[str, Any]) -> list[Request]:
    """Return what is asked of each backbone."""
    from featurebank.extraction.several import requests_for
    from featurebank.images.pixels import PixelRules

    pixels = PixelRules.parse(options["range"], options["pages"], options["channels"])
    asked = {name: options[name] for name in ASKED}
    return requests_for(options["backbones"], options["layers"], **asked, pixels=pixels)


def _tell(state: State, report: ExtractReport, listed: str) -> None:
    """Say what a user should know of a run beside its counts; `listed` is where all failures are."""
    from featurebank.extraction.drift import Drift
    from featurebank.images.sources import about_ignored

    for failure in report.failures[:SHOWN]:
        state.warn(f"{printable(failure['path'])}: {printable(failure['error'])}")
    if len(report.failures) > SHOWN:
        state.warn(f"… and {len(report.failures) - SHOWN} more; {listed}")
    for note in [*report.repaired, *report.warnings]:
        state.warn(printable(note))
    for each in report.drift:
        state.say(str(Drift(**each)))
    if state.verbose and report.readers:
        state.say(f"read by {report.readers}")
    for line in [*report.notes, about_ignored(report.ignored)]:
        if line:
            state.say(printable(line))


def _networks(requests: Sequence[Request], report: ExtractReport, bank: AnyPath) -> list[Network]:
    """Return the networks that a run embedded with, each with its feature sets."""
    from featurebank.backbones.keeping import Network
    from featurebank.bank.bank import Bank

    opened, made = Bank(bank), {each["fingerprint"] for each in report.feature_sets}
    specs = [each.spec for each in opened.feature_sets if each.spec.fingerprint in made]
    networks = []
    for each in requests:
        settled = replace(each, pixels=specs[0].pixels)
        own = [spec for spec in specs if spec in settled.specs(opened)]
        networks.append(Network(partial(settled.known_by, own[0]), own))
    return networks


def _estimate(
    found: Any,
    bank: AnyPath,
    request: Any,
    compute: Any,
    as_json: bool,
    state: State,
) -> None:
    from featurebank.extraction.planning import estimate

    facts = estimate(
        found,
        bank,
        request,
        compute,
        progress=state.progress("estimate"),
    )
    if as_json:
        print_json(facts.to_dict())
        return
    click.echo(
        f"{facts.images} of {counted(facts.samples, 'image')} to embed: {facts.images_per_second:.1f} images/s "
        f"({facts.engine}; {facts.timed} timed)"
    )
    click.echo(
        f"  {facts.hours:.2f} hours on one such device, {facts.gigabytes:.2f} GB ({facts.row_bytes} bytes an image)"
    )
    if facts.failed:
        state.warn(f"{facts.failed} of {counted(facts.timed + facts.failed, 'image')} drawn could not be read")


def _explain(found: Any, bank: AnyPath, request: Any, as_json: bool) -> None:
    from featurebank.bank.bank import Bank
    from featurebank.extraction.planning import explain
    from featurebank.storage.files import as_path

    is_new = not as_path(bank).exists()
    facts = explain(found, None if is_new else Bank(bank), request)
    if as_json:
        print_json(facts)
        return
    click.echo(
        f"{counted(facts['samples'], 'sample')}: {facts['unchanged']} unchanged, {facts['changed']} changed, "
        f"{facts['new']} new; changed and new files would be read"
    )
    if is_new:
        click.echo(f"  {printable(str(bank))} does not exist yet: extract would make it, and embed all of them")
    unread = {word: facts[word] for word in ("new", "changed") if facts[word]}
    more = " ".join(f"+{count} {word}" for word, count in unread.items())
    tail = f", {more}: hit or miss is not known until they are read" if unread else ""
    for each in facts["feature_sets"]:
        cached = f"{counted(each['hits'], 'hit')}, {counted(each['misses'], 'miss', 'misses')}"
        click.echo(f"  {each['name']}@{each['fingerprint'][:8]}: {cached}{tail}")
        for field, (there, asked) in each.get("differs", {}).items():
            click.echo(f"    unlike {each['nearest']}: {field} is {asked!r}, there {there!r}")


def _summary(report: Any, bank: AnyPath) -> None:
    from featurebank.bank.bank import Bank

    click.echo(
        f"{counted(report.samples, 'sample')}: {report.embedded} embedded, {report.reused} reused, "
        f"{report.failed} failed"
        + (f"; {report.gone} gone" if report.gone else "")
        + f" in {report.seconds:.1f} s"
        + (
            f" ({report.images_per_second:.1f} images/s with the start, {'; '.join(report.engines)})"
            if report.embedded
            else ""
        )
    )
    if report.labels:
        click.echo(f"  labels: {_labels(report.labels)}")
    opened = Bank(bank)
    names = {each.fingerprint: each.name for each in opened.feature_sets}
    for each in report.feature_sets:
        name, how = names.get(each["fingerprint"], each["name"]), how_made(each)
        shape = "x".join(map(str, each["shape"]))
        click.echo(f"  {name}  {counted(each['rows'], 'row')} of {shape} {each['dtype']}{f', {how}' if how else ''}")
    lacking = len(opened.info()["incomplete"])
    if lacking:
        info = f"featurebank info {shell_word(bank)}"
        sets = counted(lacking, "feature set lacks", "feature sets lack")
        click.echo(f"  {sets} rows of these samples; `{info}` says what to run")
    if report.unseen is not None and report.unseen > UNSEEN and report.embedded > report.reused:
        click.echo(
            f"  {report.unseen:.0%} of the images' area lies outside the crop and is never seen; --fit squash, pad or "
            "tiles takes all of it (`featurebank layers --preview` shows how)"
        )
    following = f"   next: {next_command(opened)}" if report.failed < report.samples else ""
    click.echo(f"bank: {bank}{following}")


def _labels(counts: dict[str, int]) -> str:
    """Return the classes that the folders' names gave, with their counts, as far as they fit a line."""
    named = [f"{printable(name)} {count}" for name, count in counts.items() if name]
    more = [f"… ({len(named)} classes)"] if len(named) > CLASSES_SHOWN else []
    none = f"; {counts['']} in no class folder" if "" in counts else ""
    return ", ".join(named[:CLASSES_SHOWN] + more) + none
