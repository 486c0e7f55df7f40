"""Random labels stay at chance through the whole command line; the leaky way is measured beside it."""

import json

import numpy as np
import pandas as pd
import pytest
from bank_maker import SPEC, digest
from click.testing import CliRunner

from featurebank import Bank, samples
from featurebank_cli import main


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
        **{name: [0] * n for name in ("size", "mtime_ns", "status", "origin", "stamp")},
        "error": [""] * n,
    }
    bank.add_samples(samples.make_table(fields, samples.tidy(pd.DataFrame(columns))), newest=0)
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


@pytest.mark.parametrize("model", ["logreg", "svm", "mlp"])
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
    assert any("1 images of identical content carry different values of label" in line for line in report["warnings"])
