"""featurebank export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option

from featurebank.bank.formats import FORMATS
from featurebank.errors import counted, printable
from featurebank_cli.options import (
    FILE,
    PLACE,
    allow_download_option,
    brought_weights_option,
    check_folder,
    features_option,
    json_option,
    output_option,
)
from featurebank_cli.output import print_json
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


@command()
@click.argument("source", type=PLACE)
@output_option("The file to write; its suffix says the format.")
@option(
    "--to",
    type=click.Choice(list(FORMATS)),
    help="The format.  [default: by the suffix of -o]",
)
@features_option("A feature set; may be repeated.  [default: every pooled one]", multiple=True)
@option("--target", "columns", multiple=True, help="Write this column alone; may be repeated.  [default: all]")
@option("--onnx", type=FILE, help="Write a predictor, SOURCE, as one ONNX file.")
@brought_weights_option
@allow_download_option
@json_option
@click.pass_context
def export(
    context: click.Context,
    source: AnyPath,
    output: Path | None,
    onnx: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the embeddings of a bank, or a whole predictor, as one file for other tools.

    SOURCE is a bank: its feature sets, samples and columns go to HDF5, NPZ, Parquet, h5ad (AnnData) or safetensors, and
    `featurebank import` reads them back as they were. Or SOURCE is a predictor, and --onnx names the file that holds
    network, normalisation and top model: pixels in, probabilities out.

    \b
    Example:
        featurebank export photos.bank -o photos.parquet
        featurebank export photos.featurebank --onnx photos.onnx
    """
    state: State = context.obj
    of_bank = [options[name] for name in ("to", "features", "columns")]
    if (output is None) == (onnx is None):
        raise click.UsageError("give -o FILE for a bank, or --onnx FILE for a predictor")
    if onnx is not None and any(of_bank):
        raise click.UsageError("--to, --features and --target go with a bank, not with --onnx")
    if onnx is None and (options["weights_file"] or options["allow_download"]):
        raise click.UsageError("--weights and --allow-download go with --onnx")
    if onnx is not None:
        _predictor(Path(str(source)), onnx, as_json, options["weights_file"], options["allow_download"])
    elif output is not None:
        _bank(source, output, as_json, options, state)


def _bank(source: AnyPath, output: Path, as_json: bool, options: dict[str, Any], state: State) -> None:
    from featurebank.bank.formats.exporting import export_bank

    facts = export_bank(
        str(source),
        output,
        to=options["to"],
        features=list(options["features"]) or None,
        columns=list(options["columns"]) or None,
        progress=state.progress("export", "row"),
    )
    if as_json:
        print_json(facts)
        return
    click.echo(f"{counted(facts['samples'], 'sample')} in {output} ({facts['format']}, {facts['bytes'] / 1e6:.1f} MB)")
    for each in facts["feature_sets"]:
        click.echo(f"  {printable(each['name'])}  {'x'.join(map(str, each['shape']))} {each['dtype']}")


def _predictor(source: Path, onnx: Path, as_json: bool, weights_file: Path | None, allow_download: bool) -> None:
    from featurebank.predictor.onnx import export_predictor
    from featurebank.predictor.predictor import Predictor

    check_folder(onnx)
    loaded = Predictor.load(source, weights_file=weights_file, allow_download=allow_download)
    facts = export_predictor(loaded, onnx)
    if as_json:
        print_json(facts)
        return
    inputs = facts.get("inputs", [{"name": facts["input"], "preprocessing": facts["preprocessing"]}])
    pixels = " and ".join(f"{each['name']} of {'x'.join(map(str, each['preprocessing']['crop']))}" for each in inputs)
    click.echo(f"{onnx} ({facts['bytes'] / 1e6:.1f} MB): {pixels} to {facts['output']}")
    if "threshold" in facts:
        positive = printable(str(facts["positive"]))
        click.echo(
            f"the label is {positive} where its probability is {facts['threshold']:.3g} or more (the tuned threshold; "
            "both are in the file's metadata)"
        )
    click.echo(f"checked against the predictor: {facts['worst']:.0e} off at most")
