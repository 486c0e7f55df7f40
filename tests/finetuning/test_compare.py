import numpy as np
import pytest

from featurebank import Bank, Recipe
from featurebank.backbones.request import Request
from featurebank.bank.images import source_of
from featurebank.bank.samples import values_of
from featurebank.finetuning import compare as module
from featurebank.finetuning.compare import compare, frozen_of, sentence, shared_folds
from featurebank.finetuning.experiment import Experiment, TrainingSet


@pytest.fixture
def setup(own_bank):
    bank = Bank(own_bank)
    table = bank.select("label")
    labels = TrainingSet(values_of(table, "label"), list(table.rows["digest"]))
    recipe = Recipe("head", epochs=2, validation=0.25, batch_size=8)
    return Experiment(
        bank, Request("resnet18", weights="random:0", size=64), source_of(table), labels, recipe, "cpu"
    ), table


def sides(difference, low, high):
    found = {"frozen": {"mean": 0.86}, "tuned": {"mean": 0.86 + difference}, "folds": 5, "difference": difference}
    return {**found, "ci95": [low, high], "told_apart": low > 0 or high < 0}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (sides(0.03, 0.01, 0.05), "fine-tuning paid."),
        (sides(0.01, -0.02, 0.04), "fine-tuning did not measurably pay, the difference may be chance."),
        (sides(0.0, 0.0, 0.0), "fine-tuning did not pay."),
        (sides(-0.02, -0.03, -0.01), "fine-tuning did not pay."),
    ],
)
def test_it_says_plainly_whether_fine_tuning_paid(found, verdict):
    assert sentence(found).endswith(f"on 5 folds: {verdict}")


def test_both_sides_see_the_same_folds_and_no_test_row_trains(setup, monkeypatch):
    made, table = setup
    feed, _ = made.activations()
    seen = []
    train = module.train_network

    def watched(*arguments, rows, **options):
        seen.append(set(rows.tolist()))
        return train(*arguments, rows=rows, **options)

    monkeypatch.setattr(module, "train_network", watched)
    folds = shared_folds(None, made, table, 4)
    found = compare(made, feed, frozen_of(None, made, feed, table), folds)
    assert [rows & set(test.tolist()) for rows, (_, test) in zip(seen, folds, strict=True)] == [set()] * 4
    assert found["folds"] == len(found["frozen"]["fold_scores"]) == 4
    assert found["difference"] == pytest.approx(found["tuned"]["mean"] - found["frozen"]["mean"])
    assert not found["interrupted"]


def test_an_interruption_keeps_the_finished_folds(setup):
    made, table = setup
    feed, _ = made.activations()

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    frozen, folds = frozen_of(None, made, feed, table), shared_folds(None, made, table, 4)
    found = compare(made, feed, frozen, folds, progress=stop)
    assert (found["folds"], found["interrupted"]) == (2, True)
    alone = compare(made, feed, frozen, folds, progress=lambda done, total: (_ for _ in ()).throw(KeyboardInterrupt))
    assert alone["sentence"] == "Fewer than two folds were finished, which compare nothing."


def test_folds_repeat_with_the_seed_and_are_stratified(setup):
    made, table = setup
    first, again = (shared_folds(None, made, table, 5) for _ in range(2))
    assert all(np.array_equal(one[1], two[1]) for one, two in zip(first, again, strict=True))
    assert {tuple(np.unique(made.data.y[test], return_counts=True)[1]) for _, test in first} == {(4, 4)}


def test_a_training_that_diverged_is_told_as_such():
    sides = {"frozen": {"mean": 0.9}, "tuned": {"mean": 0.5}, "folds": 5}
    told = sentence({**sides, "diverged": 2, "difference": -0.4, "ci95": [-0.5, -0.3], "told_apart": True})
    assert told.endswith("on 5 folds: training diverged in 2 of them, try a smaller learning rate (--lr).")
