"""What to run next: the exact commands, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featurebank.bank.bank import Bank
from featurebank.bank.repair_hints import extract_command, is_named, root_to_name, roots
from featurebank.bank.request import StoredRequest
from featurebank.bank.samples import values_of, weights_of
from featurebank.errors import FeatureBankError, one_line, shell_command, shell_word
from featurebank.explore.advice.evidence import Measurements, Question
from featurebank.explore.advice.networks import PENULTIMATE
from featurebank.explore.advice.rules import SENTENCES, TUNING, Action
from featurebank.fitting.fit import default_output as fit_output
from featurebank.fitting.training_data import NEAR_DUPLICATES
from featurebank.storage.files import free

if TYPE_CHECKING:
    from featurebank.finetuning.experiment import TrainingSet
    from featurebank.finetuning.recipe import Recipe

SECONDS = 60
"""Limit of the search that is recommended: enough for all models on some thousand images."""
MANY = 10_000
"""Images from which a kernel machine takes longer than that for a single fit, so that quick models are named."""
QUICK = ("logreg", "ridge")
USUAL = ("accuracy", "r2")
"""What `featurebank fit` scores by when nothing is said."""


@dataclass(frozen=True)
class Recommendation:
    """Something to do next.

    Attributes
    ----------
    action : str
        See `featurebank.explore.advice.rules.SENTENCES`.
    sentence : str
    commands : tuple of str
        Ready for a shell, in their order; empty where no command can do it here.
    cost : str
        In time and on the disk, and how far that is known; why there is no command where there is none.
    seconds : float or None
        None where it is not known.
    disk_bytes : int or None
    is_estimate : bool
        Whether the two come from timed batches on this machine, rather than being limits.
    """

    action: Action
    sentence: str
    commands: tuple[str, ...]
    cost: str
    seconds: float | None = None
    disk_bytes: int | None = None
    is_estimate: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for a report."""
        return asdict(self)


@dataclass(frozen=True)
class Planner:
    """Turns actions into commands for a bank, none of which writes over a file, or over what another of them wrote."""

    bank: Bank
    question: Question
    found: Measurements
    promised: list[Path] = field(default_factory=list)

    def recommend(self, action: Action) -> Recommendation:
        """Return the commands of an action, and what they cost here; torch is loaded where a network is timed."""
        if action == "labels":
            command = f"featurebank info {shell_word(self.bank.path)} --samples"
            return Recommendation(
                action, SENTENCES[action], (command,), "it lists every image with its columns", 0.0, 0
            )
        if action == "elsewhere":
            command = f"featurebank duplicates {shell_word(self.bank.path)}"
            return Recommendation(action, SENTENCES[action], (command,), "it reads every image once", None, 0)
        if action in ("penultimate", "lower"):
            return self._search(action)
        try:
            return self._tuning(action) if action in TUNING else self._extraction()
        except FeatureBankError as error:
            return Recommendation(action, SENTENCES[action], (), f"not possible as things are: {one_line(error)}")

    # --- top models ----------------------------------------------------------------------------------------

    def _search(self, action: Action) -> Recommendation:
        """Search for a top model; lower layers are compared with the penultimate one on the same folds."""
        top, lower = self.found.network.top, "+".join(self.found.lower.features)
        names = [top.name] if action == "penultimate" else list(dict.fromkeys([lower, top.name]))
        is_usual = action == "lower" or top.spec.layer == PENULTIMATE
        options: list[tuple[str, Any]] = [("--features", name) for name in names]
        options += [("--scoring", self.found.scoring)] if self.found.scoring not in USUAL else []
        options += [("--model", name) for name in QUICK] if len(self.found.rows.y) > MANY else []
        options += [("--groups", self.question.groups), ("--time-limit", SECONDS)]
        command = self._command("fit", [*options, ("-o", self._output(fit_output(self.bank)))])
        cost = f"{SECONDS} s at most for the search (its limit), then one fit on all images; no disk to speak of"
        sentence = SENTENCES[action] if is_usual else f"Train a top model on {top.name}."
        return Recommendation(action, sentence, (command,), cost, float(SECONDS), 0)

    def _command(self, name: str, options: Sequence[tuple[str, Any]]) -> str:
        """Return a command on this bank and target; options without a value are left out."""
        weights = ("--sample-weight", self.question.sample_weight), ("--class-weight", self.found.class_weight)
        given = [("--target", self.question.target), *weights, *options]
        return shell_command(name, self.bank.path, given)

    def _output(self, usual: Path) -> Path | None:
        """Return a file for a predictor; None where the usual one is free."""
        path = free(usual, self.promised)
        self.promised.append(path)
        return None if path == usual else path

    # --- more layers ---------------------------------------------------------------------------------------

    def _extraction(self) -> Recommendation:
        """Embed the layers of a curve, then ask again."""
        action: Action = "layers"
        network, where = self.found.network, roots(self.found.rows.table)
        if network.request is None or not all(map(is_named, where)):
            cost = "from Python: the images, or the network, have no name that a command could give"
            return Recommendation(action, SENTENCES[action], (), cost)
        from featurebank.explore.advice.costs import curve_layers, extraction_cost

        backbone = network.request.load()
        layers = curve_layers(backbone.layers)
        seconds, size = extraction_cost(backbone, layers, network.top.spec, len(self.found.rows.y))
        moved = {source: root_to_name(source, root) for source, root in where.items()}
        commands = [extract_command(self.bank, network.top.spec, *each, layers) for each in moved.items()]
        again = f"featurebank advise {shell_word(self.bank.path)} --target {shell_word(self.question.target)}"
        cost = f"estimate: {seconds:.0f} s for the network alone in plain PyTorch here, {size / 1e6:.1f} MB"
        return Recommendation(action, SENTENCES[action], (*commands, again), cost, seconds, size, is_estimate=True)

    # --- fine-tuning ---------------------------------------------------------------------------------------

    def _tuning(self, action: Action) -> Recommendation:
        """Fine-tune what comes after the plateau, or all; the cost is what the command would estimate itself."""
        from featurebank.explore.advice.costs import cut_after, tuning_cost
        from featurebank.finetuning.finetune import default_output
        from featurebank.finetuning.recipe import Recipe

        request = self.found.network.request
        assert request is not None  # the verdict asks for no tuning then
        cut = "input" if action != "top-blocks" else cut_after(request.load(), self.found.plateau.spec.layer)
        init = "random" if action == "retrain" else "pretrained"
        recipe = Recipe(cut, init=init, class_weight=self.found.class_weight)
        cost = tuning_cost(self.bank, request, self._labels(), self.found.rows.table, recipe)
        options = [*self._tuning_options(request, recipe), ("-o", self._output(default_output(self.bank)))]
        command = self._command("finetune", options)
        return Recommendation(
            action, SENTENCES[action], (command,), f"estimate: {cost}", cost.seconds, cost.disk_bytes, True
        )

    def _tuning_options(self, request: StoredRequest, recipe: Recipe) -> list[tuple[str, Any]]:
        return [
            ("--backbone", request.backbone),
            ("--weights", request.options()["--weights"]),
            ("--size", request.size),
            ("--groups", self._group_column),
            ("--from", recipe.cut),
            ("--init", None if recipe.init == "pretrained" else recipe.init),
        ]

    def _labels(self) -> TrainingSet:
        from featurebank.finetuning.experiment import TrainingSet

        table, weight = self.found.rows.table, self.question.sample_weight
        return TrainingSet(
            self.found.rows.y,
            list(table.rows["digest"]),
            values_of(table, self._group_column) if self._group_column else None,
            weights_of(table, weight) if weight else None,
        )

    @property
    def _group_column(self) -> str | None:
        """The column of groups, which is all that fine-tuning knows."""
        return None if self.question.groups in NEAR_DUPLICATES else self.question.groups
