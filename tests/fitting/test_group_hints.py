"""A column that probably holds groups is told of, once, and no other is."""

from __future__ import annotations

import numpy as np
import pytest
from made_bank import make_bank

from featurebank import fit

LABEL = np.where(np.arange(60) // 5 % 2, "b", "a")
EIGHTS = np.arange(60) // 5


def hint(tmp_path, columns, **options):
    X = np.random.default_rng(0).normal(size=(60, 4))
    bank = make_bank(tmp_path / "t.bank", X, label=LABEL, **columns)
    return fit(bank, target="label", models={"ridge": {"alpha": [1.0]}}, **options).report.get("likely_groups")


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        (
            "patient",
            EIGHTS,
            "column 'patient' names 12 values in 60 rows; if rows of one belong together, use --groups",
        ),
        ("Patient ID", EIGHTS // 2, "use --groups 'Patient ID'"),
        ("stack", [f"stacks/{n}.tif" for n in EIGHTS], "column 'stack' names 12 values"),
        ("who", [f"p{n}" for n in EIGHTS], "column 'who' names 12 values"),
        ("number", EIGHTS + 100, "column 'number' names 12 values"),  # all rows of a number have one label
    ],
)
def test_a_column_that_repeats_is_named(tmp_path, name, values, said):
    assert said in hint(tmp_path, {name: values})


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("site", np.where(np.arange(60) % 2, "A", "B")),
        ("patient", np.arange(60)),
        ("age", 50 + np.arange(60) % 12),
        ("mask", [f"masks/{n}.png" for n in EIGHTS]),
        ("weight", EIGHTS / 7),
        ("split", [("train", "val", "test")[n % 3] for n in EIGHTS]),
    ],
)
def test_other_columns_are_not(tmp_path, name, values):
    assert hint(tmp_path, {name: values}) is None


def test_one_column_is_named_and_none_where_groups_are(tmp_path):
    columns = {"patient": EIGHTS, "who": [f"p{n}" for n in EIGHTS]}
    assert "--groups patient" in hint(tmp_path / "a", columns)
    assert hint(tmp_path / "b", columns, groups="who") is None
