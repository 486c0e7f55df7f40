"""Random labels stay at chance through the whole command line; the leaky way is measured beside it."""

import json

import numpy as np
import pandas as pd
import pytest
from bank_maker import SPEC, digest
from click.testing import CliRunner

from featurebank import Bank
from featurebank.bank import samples
from featurebank.images.columns import tidy
from featurebank.topmodels.models import CLASSIFIERS
from featurebank.topmodels.transforms import SelectRelevant
from featurebank_cli import main

pytestmark = pytest.mark.slow


def make_bank(path, X, columns, digests=None):
    """A bank of made-up embeddings: no network has seen them."""
    n = len(X)
    bank = Bank.create(path)
    bank.add_spec(SPEC)
    digests = digests or [digest(number) for number in range(n)]
    bank.add_features(SPEC, digests, X[:, None].astype(np.float32))
    fields = {
        "source": ["/photos"] * n,
        "root": ["/photos"] * n,
        "path": [b"%05d.png" % number for number in range(n)],
        "digest": digests,
        **{name: [0] * n for name in ("size", "mtime_ns", "status", "row_hash", "stamp")},
        "error": [""] * n,
    }
    bank.add_samples(samples.make_table(fields, tidy(pd.DataFrame(columns))), newest=0)
    return path


def fit(bank, *options):
    done = CliRunner().invoke(main, ["fit", str(bank), "--target", "label", "--json", *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def chance(report, spread):
    """Say whether the mean lies within `spread` of 0.5."""
    return abs(report["mean"] - 0.5) < spread


def test_groups_stay_at_chance_and_leak_without_them(tmp_path):
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 10)
    X = random.normal(size=(40, 30))[group] * 3 + random.normal(size=(400, 30))
    label = random.permutation(np.repeat(["a", "b"], 20))[group]
    bank = make_bank(tmp_path / "a.bank", X, {"label": label, "patient": group})
    leaky = fit(bank, "--model", "svm")["best"]
    honest = fit(bank, "--model", "svm", "--groups", "patient")
    assert leaky["mean"] > 0.95
    assert chance(honest["best"], 0.2)
    assert honest["grouped"]


def test_near_duplicates_are_warned_about_and_tied_together(tmp_path):
    random = np.random.default_rng(1)
    X = random.normal(size=(300, 30))
    X[150:] = X[:150] + random.normal(size=(150, 30)) * 0.02
    label = random.permutation(np.repeat(["a", "b"], 75))
    bank = make_bank(tmp_path / "a.bank", X, {"label": np.concatenate([label, label])})
    leaky = fit(bank, "--model", "svm")
    honest = fit(bank, "--model", "svm", "--groups", "@near-duplicates")
    assert leaky["best"]["mean"] > 0.75
    assert any("have a near-duplicate" in line for line in leaky["warnings"])
    assert chance(honest["best"], 0.12)
    assert not any("near-duplicate" in line for line in honest["warnings"])


def test_identical_content_never_straddles_folds_even_with_groups_that_would_part_it(tmp_path):
    random = np.random.default_rng(2)
    X = np.repeat(random.normal(size=(100, 30)), 2, axis=0)
    label = np.repeat(random.permutation(np.repeat(["a", "b"], 50)), 2)
    digests = [digest(number // 2) for number in range(200)]
    columns = {"label": label, "site": np.arange(200) % 40}
    bank = make_bank(tmp_path / "a.bank", X, columns, digests)
    for options in ([], ["--groups", "site"]):
        report = fit(bank, "--model", "svm", *options)
        assert chance(report["best"], 0.15)
        assert any("100 samples repeat the content of another" in line for line in report["warnings"])


def test_the_best_of_many_is_optimistic_and_the_nested_score_is_not(tmp_path):
    selected, nested = [], []
    for seed in range(4):
        random = np.random.default_rng(seed)
        X = random.normal(size=(60, 20))
        label = random.permutation(np.repeat(["a", "b"], 30))
        report = fit(
            make_bank(tmp_path / f"{seed}.bank", X, {"label": label}), "--nested", "--model", "logreg", "--model", "svm"
        )
        selected.append(report["best"]["mean"])
        nested.append(report["nested"]["mean"])
    assert np.mean(selected) > np.mean(nested)
    assert abs(np.mean(nested) - 0.5) < 0.12  # three standard errors of 240 tosses are 0.097


def test_dimensions_chosen_on_random_labels_stay_at_chance_and_leak_when_chosen_outside_the_folds(tmp_path):
    random = np.random.default_rng(5)
    X, label = random.normal(size=(120, 1500)), random.permutation(np.repeat(["a", "b"], 60))
    chosen = SelectRelevant(0.02).fit_transform(X.astype(np.float32), label)
    leaky = fit(make_bank(tmp_path / "leaky.bank", chosen, {"label": label}), "--model", "ridge")["best"]
    bank = make_bank(tmp_path / "a.bank", X, {"label": label})
    honest = fit(bank, "--model", "ridge", "--select", "0.02", "--nested")
    assert leaky["mean"] > 0.75
    assert chance(honest["nested"], 0.14)
    assert chance(honest["best"], 0.2)


@pytest.mark.parametrize(
    "options",
    [
        ["--features", "all", "--normalize", "l2", "--normalize", "signed-sqrt"],
        ["--calibrate", "isotonic"],
        ["--rule", "one-se"],
        ["--time-limit", "20"],
        ["--cv", "stratified", "--repeats", "3"],
        ["--class-weight", "a=2,b=1"],
    ],
    ids=lambda options: options[0],
)
def test_random_labels_are_chance_through_every_path_of_the_search(tmp_path, options):
    random = np.random.default_rng(6)
    label = random.permutation(["a", "b"] * 100)
    bank = make_bank(tmp_path / "a.bank", random.normal(size=(200, 40)), {"label": label})
    nested = [] if "--repeats" in options or "--time-limit" in options else ["--nested"]
    report = fit(bank, "--model", "svm", "--model", "logreg", *options, *nested)
    assert chance(report["nested"] if nested else report["best"], 0.15)
    assert chance({"mean": report["abstention"][0]["accuracy"]}, 0.2)


def test_groups_stay_at_chance_through_the_whole_search(tmp_path):
    random = np.random.default_rng(7)
    group = np.repeat(np.arange(40), 8)
    X = random.normal(size=(40, 30))[group] * 3 + random.normal(size=(320, 30))
    label = random.permutation(np.repeat(["a", "b"], 20))[group]
    bank = make_bank(tmp_path / "a.bank", X, {"label": label, "patient": group})
    options = ["--groups", "patient", "--nested", "--select", "0.5", "--normalize", "center-l2", "--learning-curve"]
    report = fit(bank, "--model", "svm", "--model", "knn", "--model", "lda", *options)
    assert chance(report["nested"], 0.2)
    assert "Label more" not in report["learning_curve"]["verdict"]
    assert report["best"]["interval"] == "korn-graubard"


@pytest.mark.parametrize("model", list(CLASSIFIERS))
def test_random_labels_are_chance_for_every_top_model(tmp_path, model):
    random = np.random.default_rng(3)
    bank = make_bank(
        tmp_path / "a.bank", random.normal(size=(300, 40)), {"label": random.permutation(["a", "b"] * 150)}
    )
    assert chance(fit(bank, "--model", model)["best"], 0.12)


def test_identical_content_under_two_labels_is_reported(tmp_path):
    random = np.random.default_rng(4)
    digests = [digest(max(number, 1)) for number in range(40)]
    X = random.normal(size=(40, 5))
    X[0] = X[1]
    bank = make_bank(tmp_path / "a.bank", X, {"label": ["a", "b"] * 20}, digests)
    report = fit(bank, "--model", "logreg")
    assert any("1 content comes with different values of label, e.g. that of" in line for line in report["warnings"])
