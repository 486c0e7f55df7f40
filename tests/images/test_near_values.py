"""Classes that are probably another one, mistyped."""

from __future__ import annotations

import pandas as pd
import pytest

from featurebank.images.near_values import notes_on_near_values


def notes_on(values: list[str | None]) -> list[str]:
    return notes_on_near_values(pd.DataFrame({"kind": values}), [f"{row}.tif" for row in range(len(values))])


@pytest.mark.parametrize(
    ("slip", "times", "others", "said"),
    [
        ("benin", 1, ["benign", "malign"], "kind: 'benin' in 1 row (0.tif) beside 'benign' in 9: did you mean benign?"),
        ("Benign", 3, ["benign", "malign"], "kind: 'Benign' in 3 rows (e.g. 0.tif) beside 'benign' in 9"),
        ("left eye", 2, ["left_eye", "right_eye"], "kind: 'left eye' in 2 rows (e.g. 0.tif) beside 'left_eye' in 9"),
        ("mal", 1, ["benign", "malignant"], "beside 'malignant' in 9: did you mean malignant?"),
        ("gesnd", 1, ["gesund", "krank"], "beside 'gesund' in 9: did you mean gesund?"),
    ],
)
def test_a_slip_is_named_with_what_was_meant(slip, times, others, said):
    found = notes_on([slip] * times + others * 9 + [None])
    assert len(found) == 1
    assert said in found[0]
    assert found[0].endswith("`featurebank label` corrects it")


@pytest.mark.parametrize(
    ("rare", "times", "others"),
    [
        ("T1a", 1, ["T1b", "T2"]),
        ("grade III", 1, ["grade I", "grade II"]),
        ("abnormal", 1, ["normal", "odd"]),
        ("A-", 1, ["A+", "B+"]),
        ("benin", 2, ["benign", "malign"]),  # comes back: a word of its own
        ("owl", 1, ["lynx", "dog"]),
        ("1-2", 3, ["12", "3"]),
    ],
)
def test_a_rare_class_is_no_slip(rare, times, others):
    assert notes_on([rare] * times + others * 9) == []


def test_names_that_do_not_come_back_are_no_classes():
    assert notes_on([f"image{chr(97 + number)}" for number in range(20)]) == []
