"""featurebank finetune."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from cloup import command, option, option_group

from featurebank.topmodels.formatting import percent
from featurebank_cli.options import (
    FILE,
    POSITIVE,
    bank_argument,
    class_weight_option,
    device_option,
    folds_option,
    groups_option,
    json_option,
    output_option,
    precision_option,
    predictor_option,
    sample_weight_option,
    seed_option,
    size_option,
    store_option,
    target_option,
    weights_option,
    workers_option,
)
from featurebank_cli.output import print_json, print_table
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


def _rate(context: click.Context, option: click.Parameter, value: str | None) -> float | str | None:
    """Parse ``auto`` or a number."""
    try:
        return value if value in (None, "auto") else float(value)
    except ValueError as error:
        raise click.BadParameter("expected auto, or a number such as 1e-3") from error


@command()
@bank_argument
@option_group(
    "What is trained",
    option(
        "--from",
        "cut",
        required=True,
        help="The module from which on is trained, e.g. layer4 or blocks.5; input for all of the network, head for "
        "the new head alone.",
    ),
    predictor_option(
        "A predictor of `featurebank fit`: its backbone is trained, from its logistic regression where it is one."
    ),
    option("--backbone", help="See `featurebank backbones`.  [default: the predictor's, or the bank's only one]"),
    weights_option,
    size_option,
    target_option("Column of classes.  [default: the predictor's, label, or the only column]"),
    output_option("The predictor.  [default: BANK's stem + .tuned.featurebank]"),
)
@option_group(
    "How it is trained",
    option("--epochs", type=POSITIVE, default=10, help="At most so many."),
    option("--lr", callback=_rate, help="Learning rate of the head, or auto to look for one.  [default: optimiser's]"),
    option(
        "--augment",
        help="cached:K (K views of each image, their activations in the bank), cached:flips and the like, live (read "
        "and changed anew in each epoch), or live:hflip,vflip,crop=0.5,translate=0.1,rotate=15,jitter=0.2.  "
        "[default: cached:8; live from input, cached:none from head]",
    ),
    option("--batch-size", type=POSITIVE, default=32, help="Images a step."),
    option(
        "--lr-decay",
        type=click.FloatRange(min=1),
        default=4.0,
        help="How many times smaller the rate is in each earlier block.",
    ),
    option(
        "--optimizer",
        type=click.Choice(["sgd", "adam", "adamw", "rmsprop", "adagrad"]),
        default="adamw",
        help="sgd has momentum 0.9.",
    ),
    option("--weight-decay", type=click.FloatRange(min=0), default=0.01, help="Of weights alone."),
    option(
        "--warmup",
        type=click.FloatRange(0, 1, max_open=True),
        default=0.1,
        help="Share of the steps in which the rate grows.",
    ),
    option("--clip", type=click.FloatRange(min=0), default=1.0, help="Largest gradient norm."),
    option("--patience", type=POSITIVE, default=5, help="Epochs without a better score."),
    option("--refit", is_flag=True, help="Then train anew on all images, to the epoch that was chosen."),
    option(
        "--average",
        type=click.Choice(["none", "ema", "wise-ft"]),
        default="none",
        help="Average the weights over the steps, or between start and end.",
    ),
    option("--label-smoothing", type=click.FloatRange(0, 1, max_open=True), default=0.0, help="A share."),
    option("--mixup", type=click.FloatRange(min=0), default=0.0, help="Mix pairs of images; 0.2 is usual."),
)
@option_group(
    "What the network is",
    option("--head", default="linear", help="linear, or mlp:H with H hidden units."),
    option(
        "--init",
        type=click.Choice(["pretrained", "random"]),
        default="pretrained",
        help="random: the weights from the cut on are drawn anew.",
    ),
    option(
        "--unfreeze",
        default="all",
        help="all, gradual (a block more each epoch, from the head on), or only:BLOCK.",
    ),
    option(
        "--batchnorm",
        type=click.Choice(["eval", "train"]),
        help="Keep the statistics of batch normalisation, or learn them anew.  "
        "[default: eval; train with --init random]",
    ),
    option("--views", default="none", help="Views of an image whose scores a prediction averages."),
)
@option_group(
    "How it is scored",
    option(
        "--validation", type=click.FloatRange(0, 0.5), default=0.15, help="Share of the images that choose the epoch."
    ),
    folds_option("Also cross-validate the fine-tuning against the frozen features on so many folds.", default=None),
    groups_option,
    sample_weight_option,
    class_weight_option,
    option("--plot", type=FILE, help="Draw the learning curve into this PNG or SVG file."),
)
@option_group(
    "How it is computed",
    seed_option,
    device_option,
    precision_option("bf16 or fp16 for mixed precision."),
    store_option("Dtype of the activations in the bank."),
    workers_option,
    option("--resume", is_flag=True, help="Go on where the same command was stopped."),
)
@json_option
@click.pass_obj
def finetune(
    state: State, bank: AnyPath, output: Path | None, plot: Path | None, resume: bool, as_json: bool, **options: Any
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
    from featurebank.explore.plots import check_format, figure_bytes, plot_training
    from featurebank.finetuning.finetune import Hooks, default_output
    from featurebank.finetuning.finetune import finetune as run_finetune
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
        files.commit(plot, figure_bytes(plot_training(result.report), plot.suffix))
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
