"""featurebank fit."""

from __future__ import annotations

from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import cloup
from cloup import command, option, option_group

from featurebank.bank.spec import common_backbone, short
from featurebank.errors import counted, printable
from featurebank.topmodels.formatting import (
    COMMITTEE,
    cost_text,
    gain_ends,
    interval_text,
    is_share,
    luck_text,
    percent,
    score_text,
    signed_text,
)
from featurebank_cli.adapt import adapt
from featurebank_cli.fitted import conclude_fit, predictor_path
from featurebank_cli.options import (
    POSITIVE,
    backend_options,
    bank_argument,
    class_weight_option,
    features_option,
    folds_option,
    groups_option,
    jobs_option,
    json_option,
    one_value,
    output_option,
    repeats_option,
    sample_weight_option,
    scoring_option,
    seed_option,
    split_option,
    target_option,
    task_option,
)
from featurebank_cli.output import print_table
from featurebank_cli.state import State

if TYPE_CHECKING:
    from featurebank.storage.files import AnyPath


class _Fit(cloup.Command):
    """``fit --domain``, which is now the command ``adapt``, hands over to it."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Return the context of adapt where ``--domain`` is given, and say so."""
        if not any(word.partition("=")[0] == "--domain" for word in args):
            return super().make_context(info_name, args, parent, **extra)
        if parent is not None:
            parent.obj.warn(
                "fit --domain is now adapt --domain (--adapt is --method); the old spelling goes with the next release"
            )
        words = ["--method" + word.removeprefix("--adapt") if word.startswith("--adapt") else word for word in args]
        return adapt.make_context("adapt", words, parent, **extra)


@command(cls=_Fit)
@bank_argument
@option_group(
    "What is tried",
    features_option(
        "A candidate: NAME or NAME+NAME, may be repeated; all adds the best concatenations.  "
        "[default: every pooled set]",
        multiple=True,
    ),
    option(
        "--model",
        "models",
        multiple=True,
        help="centroid, ridge, lda, logreg, linear-svm, knn, svm, mlp (numbers: ridge, knn, svr, mlp), all, "
        "sgd-logreg, sgd-svm, or the import path of your own; may be repeated; with --normal mahalanobis, knn, "
        "pca-residual, ocsvm, gmm.  [default: logreg svm mlp, or ridge svr mlp; ridge lda sgd-logreg, or ridge mlp, "
        "where embeddings do not fit into memory; with --normal all of these]",
    ),
    target_option(
        "Column of classes or numbers; several columns are several tasks, or labels where all are of 0 and 1.  "
        "[default: label, or the only column]",
        multiple=True,
    ),
    output_option("The predictor; an older one there is replaced.  [default: BANK's stem + .featurebank]"),
)
@option_group(
    "How it is scored",
    option(
        "--cv",
        help="stratified, group, stratified-group, logo, plain, or predefined:COLUMN.  [default: stratified, grouped "
        "where rows belong together]",
    ),
    split_option,
    folds_option(),
    repeats_option,
    option("--nested", is_flag=True, help="Also score the whole procedure, selection included."),
    groups_option,
    sample_weight_option,
    class_weight_option,
    scoring_option,
    option(
        "--positive",
        metavar="CLASS",
        help="Of two classes the one that f1, precision, recall … and --threshold are of.  [default: the rarer one]",
    ),
    option("--rule", type=click.Choice(["best", "one-se"]), default="best", help="What wins."),
)
@option_group(
    "A committee of models",
    option(
        "--ensemble",
        is_flag=True,
        help="Also average what several models say, best of several backbones; shipped where it wins.",
    ),
    option("--members", type=POSITIVE, help="At most so many models in it.  [default: as many as help]"),
    option(
        "--with",
        "given",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE.featurebank",
        help="A predictor that may be in it, as a fine-tuned one; it learned from none of the samples that are tested. "
        "May be repeated.",
    ),
)
@option_group(
    "What the labels are",
    task_option,
    option("--separator", help="Divides the labels in a cell of the target, where an image has several."),
    option(
        "--unlabelled",
        type=click.Choice(["self-training", "spreading", "whiten"]),
        multiple=True,
        help="Let rows without a label help, and compare on the same folds whether that pays; may be repeated.",
    ),
)
@option_group(
    "From normal images alone",
    option(
        "--normal",
        metavar="VALUE",
        is_flag=False,
        flag_value="*",
        multiple=True,
        callback=one_value,
        help="Learn from the images alone that have this value of the target; others only score. Without a value: "
        "every image is normal.",
    ),
    option(
        "--false-alarms",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        help="Share of new normal images that may be flagged.  [default: 0.01, or the least that so few normals can "
        "promise]",
    ),
)
@option_group(
    "What the models see",
    option(
        "--views",
        multiple=True,
        help="What is learned from an image's views: their mean, the first, or all as rows of their own; repeated, "
        "all are tried.  [default: mean]",
    ),
    option(
        "--normalize",
        multiple=True,
        help="standardize, none, l2, center-l2, signed-sqrt or whiten; repeated, all are tried.  "
        "[default: standardize]",
    ),
    option(
        "--select",
        type=float,
        multiple=True,
        help="Share of the dimensions that is selected in each fold; may be repeated.",
    ),
)
@option_group(
    "What the winner gets",
    option(
        "--calibrate",
        type=click.Choice(["auto", "temperature", "class-temperature", "sigmoid", "isotonic"]),
        help="Calibrate the probabilities on out-of-fold scores.  [default: auto for models without probabilities of "
        "their own]",
    ),
    option("--threshold", help="Tune the threshold of two classes for this scorer, e.g. f1."),
    option("--learning-curve", is_flag=True, help="Also tell what more labels would bring."),
)
@option_group(
    "How it is computed",
    seed_option,
    jobs_option,
    option("--time-limit", type=click.FloatRange(min=0, min_open=True), help="Seconds for the search."),
    option(
        "--memory",
        type=click.FloatRange(min=0),
        help="Gigabytes that the embeddings may take; more are read in batches.  [default: a third of what is free]",
    ),
    *backend_options("ray: the jobs are those of a Ray cluster; scores are the same."),
)
@json_option
@click.pass_obj
def fit(
    state: State,
    bank: AnyPath,
    output: Path | None,
    as_json: bool,
    backend: str,
    ray_address: str | None,
    **options: Any,
) -> None:
    """Cross-validate top models over the feature sets of BANK and save the best as a predictor.

    Beside the predictor, STEM.oof.csv gets what the best model said of each image when it was in a test part.
    Ctrl-C ends the search with what is finished. To learn from the labels of one domain for the images of another, see
    `featurebank adapt`.

    \b
    Example:
        featurebank fit photos.bank --model svm --features resnet18/layer3+resnet18/penultimate
        featurebank fit photos.bank --ensemble
    """
    from featurebank.bank.bank import Bank

    path = predictor_path(Bank(bank), output)
    with _jobs(backend, ray_address):
        result = _run(state, Bank(bank), options)  # whose tables are let go of when it is done
    conclude_fit(state, result, path, as_json, print_report)


def _jobs(backend: str, ray_address: str | None) -> AbstractContextManager[None]:
    """Return the context in which a cluster does a search's jobs, or one that changes nothing."""
    if backend == "local":
        return nullcontext()
    from featurebank.extraction.ray.jobs import jobs_on_ray

    return jobs_on_ray(ray_address)


def _run(state: State, bank: Any, options: dict[str, Any]) -> Any:
    """Fit with the function that the flags ask for."""
    arguments = _arguments(options)
    arguments["progress"] = state.progress("fit", "fit")
    unlabelled = arguments.pop("unlabelled")
    if unlabelled:
        from featurebank.fitting.unlabelled import fit_semi_supervised

        return fit_semi_supervised(bank, unlabelled, on_compared=state.progress("compare", "fit"), **arguments)
    from featurebank.fitting.fit import fit as run_fit

    return run_fit(bank, **arguments)


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Return the library's arguments: a flag that was not given is left to its default."""
    several = ("features", "models", "target", "views", "normalize", "select", "given")
    lists = {name: list(options.pop(name)) for name in several}
    words = {name: "all" for name in ("features", "models") if lists[name] == ["all"]}
    memory = options.pop("memory")
    options |= {"random_state": options.pop("seed"), "n_jobs": options.pop("jobs")}
    limits = {} if memory is None else {"memory": memory * 1e9}
    return {**options, **{name: value for name, value in lists.items() if value}, **words, **limits}


def print_report(report: dict[str, Any]) -> None:
    """Print what was found for one task, or for each of several and what sharing came to."""
    for name, each in report.get("tasks", {}).items():
        print_candidates(each, f"{printable(name)}: ")
        print_findings(each)
        click.echo()
    if "split" in report:
        click.echo(f"{printable(report['split']['sentence'])}.")
    if "tasks" not in report:
        print_candidates(report)
        print_findings(report)
    elif report["sharing"]:
        click.echo("One network whose hidden layer all tasks share, against one for each, on the same folds:")
        for each in report["sharing"].values():
            click.echo(printable(each["sentence"]))


def print_candidates(report: dict[str, Any], title: str = "") -> None:
    """Print the best of each features × normalisation × model, best first, under a title."""
    from featurebank.topmodels.candidates import ranked, recipe_of

    best, seconds = ranked(report["candidates"]), Counter[Any]()
    for each in report["candidates"]:
        seconds[recipe_of(each)] += each["seconds"]
    common = common_backbone("+".join(each["features"]) for each in best)
    is_imbalanced = report.get("imbalanced", False) and report["scoring"] != "balanced_accuracy"
    rows = [
        [
            _features(each, common),
            each["model"],
            ", ".join(f"{name}={_number(value)}" for name, value in each["params"].items()),
            score_text(each["mean"], report["scoring"], unit=""),
            interval_text(each["ci95"], report["scoring"]),
            *([percent(each["balanced_accuracy"])] if is_imbalanced else []),
            f"{seconds[recipe_of(each)]:.1f}",
        ]
        for each in best
    ]
    if report.get("guess"):
        unknown = [""] * (1 + is_imbalanced)
        rows.append(["a guess", "", "", score_text(report["guess"]["mean"], report["scoring"], unit=""), *unknown, ""])
    kind = "" if report["task"] in ("regression", "anomaly") else f", {len(report['classes'])} classes"
    title += f"{report['scoring']}, {report['folds']}-fold, {counted(report['n_samples'], 'sample')}{kind}" + (
        f", {common.rstrip('/')}" if common else ""
    )
    unit = "mean %" if is_share(report["scoring"]) else "mean"
    columns = ["features", "model", "parameters", unit, "95 %", *(["balanced %"] if is_imbalanced else []), "s"]
    print_table(title, columns, rows, right=range(3, len(columns)))


def _features(each: dict[str, Any], common: str) -> str:
    if each["model"] == COMMITTEE:
        return counted(len(each["features"]), "feature set")
    extra = {"mean": [], "first": ["first view"], "all": ["all views"]}[each["views"]]
    extra += [] if each["normalize"] == "standardize" else [each["normalize"]]
    extra += [] if each["select"] is None else [f"{each['select']:g} of them"]
    return ", ".join([short("+".join(each["features"])).removeprefix(common), *extra])


def print_findings(report: dict[str, Any]) -> None:
    """Print what the report says beside the table, a line each."""
    _print_choice(report)
    _print_other_scores(report)
    _print_decisions(report)
    if "likely_groups" in report:
        click.echo(printable(report["likely_groups"]))
    if "second_backbone" in report:
        click.echo(report["second_backbone"])
    if "unlabelled" in report:
        _print_unlabelled(report)
    for sentence in report.get("one_class", {}).get("sentences", []):
        click.echo(f"{printable(sentence)}.")
    if "learning_curve" in report:
        click.echo(report["learning_curve"]["verdict"])


def _print_choice(report: dict[str, Any]) -> None:
    """Print how far the best candidate is to be believed."""
    if report.get("guess") and not report["guess"]["told_apart"]:
        click.echo(f"{report['guess']['sentence'].capitalize()}.")
    if len(report["candidates"]) > 1:
        luck = luck_text(report)
        click.echo(f"The best was selected among these, so its score is a little optimistic.{luck and ' '}{luck}")
    if report["comparison"]:
        common = common_backbone("+".join(each["features"]) for each in report["candidates"])
        click.echo(f"{report['comparison']['sentence'].replace(common, '')}.")
    if "ensemble" in report:
        _print_committee(report["ensemble"])


def _print_other_scores(report: dict[str, Any]) -> None:
    """Print the scores beside that of the cross-validation: nested, held out, by class or by label."""
    if "nested" in report:
        nested = report["nested"]
        selected, honest = (score_text(each["mean"], report["scoring"], unit="") for each in (report["best"], nested))
        ends = interval_text(nested["ci95"], report["scoring"])
        click.echo(f"Nested, the selection included: {honest} (95 % {ends}); selected: {selected}.")
    if "held_out" in report:
        held = report["held_out"]
        name = "r2" if report["task"] == "regression" else "accuracy"
        ends = interval_text(held["intervals"][name], name)
        click.echo(
            f"Held-out {name}: {score_text(held[name], name)} (95 % {ends}) of {counted(held['n_samples'], 'sample')}."
        )
    if report.get("imbalanced"):
        recalls = ", ".join(f"{each['class']} {percent(each['recall'])}" for each in report["per_class"])
        click.echo(f"Recall by class, %: {recalls}.")
    for each in report.get("per_label", []):
        click.echo(
            f"{each['label']}: {counted(each['n'], 'image')}, F1 {each['f1']:.3f}, ROC AUC {each['roc_auc']:.3f}"
        )


def _print_decisions(report: dict[str, Any]) -> None:
    """Print what a tuned threshold and a calibration changed."""
    if "threshold" in report:
        tuned = report["threshold"]
        change = f"{tuned['before']:.3f} -> {tuned['after']:.3f}"
        usual = "no worse" if tuned["is_shipped"] else "better and stays"
        better = "" if tuned["after"] > tuned["before"] else f"; the usual threshold is {usual}"
        name = printable(str(tuned["positive"]))
        click.echo(
            f"Threshold {tuned['threshold']:.3g} of {name} for {tuned['scoring']}: {change}, out of fold{better}."
        )
    calibration = report.get("calibration", {})
    if calibration.get("method") and calibration["ece_before"] is not None:
        change = f"{calibration['ece_before']:.3f} -> {calibration['ece_after']:.3f}"
        click.echo(f"Expected calibration error, {calibration['method']}: {change}.")


def _print_committee(found: dict[str, Any]) -> None:
    """Print whether a committee paid, who is in it, and what it costs where it is shipped."""
    sentence = found["sentence"]
    click.echo(f"{sentence[0].upper()}{sentence[1:]}.")
    if not found["is_shipped"]:
        return
    for each in found["members"]:
        click.echo(f"  {each['weight']:.2f} {each['model']} on {short('+'.join(each['features']))}")
    losses = found.get("log_loss", {})
    if losses.get("single") is not None:
        click.echo(f"Log loss, out of fold: {losses['single']:.3f} -> {losses['committee']:.3f}.")
    click.echo(cost_text(found["cost"]))


def _print_unlabelled(report: dict[str, Any]) -> None:
    """Print what the rows without a label brought, each method beside the supervised fit."""
    found, rows, scoring = report["unlabelled"], [], report["scoring"]
    for each in found["methods"]:
        gain = ["", ""]
        if "difference" in each:
            gain = [signed_text(each["difference"], scoring), gain_ends(each["difference_ci95"], scoring)]
        mean, ends = score_text(each["mean"], scoring, unit=""), interval_text(each["ci95"], scoring)
        rows.append([each["method"], each["model"], mean, ends, *gain])
    title = f"{counted(found['rows'], 'row')} without a label; parameters chosen inside each fold"
    print_table(title, ["method", "model", "mean", "95 %", "gain", "95 %"], rows, right=range(2, 6))
    click.echo(f"{found['sentence']}.")


def _number(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
