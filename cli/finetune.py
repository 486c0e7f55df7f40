"""featurebank finetune."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featurebank_cli.fit import class_weight_option
from featurebank_cli.options import bank_argument, json_option, size_option, weights_option
from featurebank_cli.output import percent, print_json, print_table
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import Place


def _rate(context: click.Context, option: click.Parameter, value: str | None) -> float | str | None:
    """Parse ``auto`` or a number."""
    try:
        return value if value in (None, "auto") else float(value)
    except ValueError as error:
        raise click.BadParameter("expected auto, or a number such as 1e-3") from error


@click.command()
@bank_argument
@click.option(
    "--from",
    "cut",
    required=True,
    help="The module from which on is trained, e.g. layer4 or blocks.5; input for all of the network, head for the new "
    "head alone.",
)
@click.option(
    "--predictor",
    type=click.Path(path_type=Path),
    help="A predictor of `featurebank fit`: its backbone is trained, from its logistic regression where it is one.",
)
@click.option("--backbone", help="See `featurebank backbones`.  [default: the predictor's, or the bank's only one]")
@weights_option
@size_option
@click.option("--target", help="Column of classes.  [default: the predictor's, label, or the only column]")
@click.option("--groups", help="Column of groups that never straddle a split.")
@click.option("--sample-weight", help="Column of weights, in the loss and in every score.")
@class_weight_option
@click.option("--head", default="linear", show_default=True, help="linear, or mlp:H with H hidden units.")
@click.option(
    "--init",
    type=click.Choice(["pretrained", "random"]),
    default="pretrained",
    show_default=True,
    help="random: the weights from the cut on are drawn anew.",
)
@click.option(
    "--unfreeze",
    default="all",
    show_default=True,
    help="all, gradual (a block more each epoch, from the head on), or only:BLOCK.",
)
@click.option(
    "--augment",
    help="cached:K (K views of each image, their activations in the bank), cached:flips and the like, live (read and "
    "changed anew in each epoch), or live:hflip,vflip,crop=0.5,translate=0.1,rotate=15,jitter=0.2.  "
    "[default: cached:8; live from input, cached:none from head]",
)
@click.option(
    "--views", default="none", show_default=True, help="Views of an image whose scores a prediction averages."
)
@click.option(
    "--store",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Dtype of the activations in the bank.",
)
@click.option("--epochs", type=click.IntRange(min=1), default=10, show_default=True, help="At most so many.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Images a step.")
@click.option(
    "--lr", callback=_rate, help="Learning rate of the head, or auto to look for one.  [default: optimiser's]"
)
@click.option(
    "--lr-decay",
    type=click.FloatRange(min=1),
    default=4.0,
    show_default=True,
    help="How many times smaller the rate is in each earlier block.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["sgd", "adam", "adamw", "rmsprop", "adagrad"]),
    default="adamw",
    show_default=True,
    help="sgd has momentum 0.9.",
)
@click.option("--weight-decay", type=click.FloatRange(min=0), default=0.01, show_default=True, help="Of weights alone.")
@click.option(
    "--warmup",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Share of the steps in which the rate grows.",
)
@click.option("--clip", type=click.FloatRange(min=0), default=1.0, show_default=True, help="Largest gradient norm.")
@click.option(
    "--patience", type=click.IntRange(min=1), default=5, show_default=True, help="Epochs without a better score."
)
@click.option(
    "--validation",
    type=click.FloatRange(0, 0.5),
    default=0.15,
    show_default=True,
    help="Share of the images that choose the epoch.",
)
@click.option("--refit", is_flag=True, help="Then train anew on all images, to the epoch that was chosen.")
@click.option(
    "--batchnorm",
    type=click.Choice(["eval", "train"]),
    help="Keep the statistics of batch normalisation, or learn them anew.  [default: eval; train with --init random]",
)
@click.option(
    "--average",
    type=click.Choice(["none", "ema", "wise-ft"]),
    default="none",
    show_default=True,
    help="Average the weights over the steps, or between start and end.",
)
@click.option(
    "--label-smoothing", type=click.FloatRange(0, 1, max_open=True), default=0.0, show_default=True, help="A share."
)
@click.option(
    "--mixup", type=click.FloatRange(min=0), default=0.0, show_default=True, help="Mix pairs of images; 0.2 is usual."
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    help="Also cross-validate the fine-tuning against the frozen features on so many folds.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="bf16 or fp16 for mixed precision.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of everything that is drawn.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or mps.")
@click.option("--workers", type=click.IntRange(min=1), help="Threads that read and decode.  [default: one a core]")
@click.option("--resume", is_flag=True, help="Go on where the same command was stopped.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the learning curve into this PNG or SVG file.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The predictor.  [default: BANK's stem + .tuned.featurebank]",
)
@json_option
@click.pass_obj
def finetune(
    state: State, bank: Place, output: Path | None, plot: Path | None, resume: bool, as_json: bool, **options: Any
) -> None:
    """Train the upper blocks of a backbone on the images of BANK and save them as a predictor.

    What lies before --from stays frozen: its activations are computed once, kept in the bank, and used again in every
    epoch and every run. Ctrl-C keeps the best epoch so far; --resume goes on from there.

    \b
    Example:
        featurebank finetune photos.bank --from blocks.5 --predictor photos.featurebank --folds 5
    """
    from featurebank.bank.bank import Bank
    from featurebank.errors import StorageError
    from featurebank.explore.drawing import check_format
    from featurebank.finetuning.job import Hooks, default_output
    from featurebank.finetuning.job import finetune as run_finetune
    from featurebank.finetuning.plot import learning_curve
    from featurebank.finetuning.recipe import Recipe
    from featurebank.finetuning.tuning import Watch
    from featurebank.storage import files

    opened = Bank(bank)
    path = output or default_output(opened)
    for place in filter(None, (path, plot)):
        if not place.parent.is_dir():
            raise StorageError(f"no folder {str(place.parent)!r}; make it, or name another with -o or --plot")
    if plot is not None:
        check_format(plot.suffix)
    recipe = Recipe(**{field.name: options.pop(field.name) for field in fields(Recipe)})
    checkpoint = path.with_suffix(".checkpoint")
    hooks = Hooks(
        on_estimate=lambda found: state.say(f"estimate: {found}"),
        on_cached=state.progress("activations"),
        on_fold=state.progress("folds", "fold"),
        watch=Watch(_epoch_printer(state, recipe.epochs), state.progress("train", "step"), checkpoint, resume),
    )
    result = run_finetune(opened, recipe, folds=options.pop("folds") or 0, hooks=hooks, **options)
    result.save(path)
    if plot is not None:
        files.commit(plot, learning_curve(result.report["history"], plot.suffix))
    if not result.report["interrupted"]:
        files.remove(checkpoint)
    report = {**result.report, "predictor": str(path)}
    for note in report["warnings"]:
        state.warn(note)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _epoch_printer(state: State, epochs: int) -> Any:
    def tell(epoch: Any) -> None:
        score = "" if epoch.score is None else f"validation {percent(epoch.score)} %, log loss {epoch.loss:.4f}"
        if not epoch.number:
            state.say(f"epoch 0/{epochs}  the new head on frozen features  {score}")
            return
        state.say(
            f"epoch {epoch.number}/{epochs}  loss {epoch.train_loss:.4f}  {score}  "
            f"{epoch.images_per_second:.0f} images/s, {epoch.seconds_left:.0f} s left"
        )

    return tell


def _print(report: dict[str, Any]) -> None:
    rows = [[each["name"], f"{each['parameters']:,}", f"{each['lr']:.2g}"] for each in report["blocks"]]
    title = f"{report['backbone']} from {report['cut']}: {report['n_train']} images, {len(report['classes'])} classes"
    print_table(title, ["block", "parameters", "learning rate"], rows, right=(1, 2))
    best, start = report["best"], report["start"]
    if best["score"] is not None:
        click.echo(
            f"Best epoch {best['number']}: validation {percent(best['score'])} % of {report['n_validation']} images; "
            f"the head alone {percent(start['score'])} %."
        )
        if best["score"] <= start["score"]:
            click.echo("No better than the frozen features on these few; --folds tells whether fine-tuning pays.")
    last = report["history"][-1]["number"]
    if last < report["recipe"]["epochs"] and not report["interrupted"]:
        click.echo(f"Stopped after epoch {last}: no better one since epoch {best['number']} (--patience).")
    if report["interrupted"]:
        click.echo("Interrupted: the best epoch so far is kept; --resume goes on.")
    if "comparison" in report:
        click.echo(f"{report['comparison']['sentence']} {report['comparison']['seconds']:.0f} s.")
    click.echo(f"predictor: {report['predictor']}   in {report['seconds']:.0f} s")
