import numpy as np
import pandas as pd
import pytest

from featurebank import Bank, fit
from featurebank.errors import ColumnError, FeatureBankError, NotInstalledError
from featurebank.explore import label_errors, label_issues

OPTIONS = {"features": "resnet18/layer3", "models": {"logreg": {"C": [0.01]}}}


@pytest.fixture
def flipped(own_bank):
    """A bank of 20 cats and 20 dogs of which two cats and a dog carry the other label, and their paths."""
    wrong = {"cat/03.png": "dog", "cat/11.png": "dog", "dog/07.png": "cat"}
    bank = Bank(own_bank)
    bank.label(pd.DataFrame({"path": list(wrong), "label": list(wrong.values())}))
    return bank, wrong


def test_flipped_labels_are_found_first(flipped):
    bank, wrong = flipped
    found = label_issues(bank, **OPTIONS)
    assert found.columns.tolist() == ["source", "path", "given", "suggested", "quality", "label"]
    assert set(found["path"][:3]) == set(wrong)
    assert dict(zip(found["path"], found["given"], strict=True)).items() >= wrong.items()
    assert (found["given"] != found["suggested"]).all()
    assert found["quality"].is_monotonic_increasing
    assert found["quality"].between(0, 0.5).all()
    assert found["label"].isna().all()


def test_the_predictions_of_an_earlier_fit_say_the_same(flipped):
    bank, _ = flipped
    oof = fit(bank, **OPTIONS).oof
    expected = label_issues(bank, **OPTIONS)
    pd.testing.assert_frame_equal(label_issues(bank, oof=oof), expected)
    shuffled = oof.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(label_issues(bank, oof=shuffled), expected)
    repeated = pd.concat([oof, oof])  # as repeated folds give them
    pd.testing.assert_frame_equal(label_issues(bank, oof=repeated), expected)


def test_what_has_no_label_or_no_probabilities_is_not_judged(flipped):
    bank, wrong = flipped
    oof = fit(bank, **OPTIONS).oof
    oof.loc[oof["path"] == "cat/03.png", ["proba_cat", "proba_dog"]] = np.nan
    oof = oof[oof["path"] != "cat/11.png"]
    assert set(wrong) & set(label_issues(bank, oof=oof)["path"]) == {"dog/07.png"}
    bank.label(pd.DataFrame({"path": ["cat/00.png"], "label": ["lynx"]}))
    oof = oof.assign(proba_lynx=0.0)
    oof.loc[oof["path"] == "cat/00.png", "proba_cat"] = np.nan  # the only lynx is not judged
    assert set(wrong) & set(label_issues(bank, oof=oof)["path"]) == {"dog/07.png"}


def test_classes_may_be_numbers(flipped):
    bank, wrong = flipped
    label = bank.samples["label"]
    bank.label(pd.DataFrame({"path": bank.samples["path"], "kind": (label == "dog").astype(int)}))
    found = label_issues(bank, target="kind", **OPTIONS)
    assert set(found["path"][:3]) == set(wrong)
    assert set(found["suggested"]) <= {0, 1}
    assert found.columns[-1] == "kind"


def test_labels_without_a_doubt_give_an_empty_table(two_class_bank):
    found = label_issues(two_class_bank, **OPTIONS)
    assert found.empty
    assert found.columns.tolist() == ["source", "path", "given", "suggested", "quality", "label"]


@pytest.mark.parametrize("column", label_errors.COLUMNS)
def test_a_target_that_is_called_as_a_column_of_the_result_is_an_error(two_class_bank, column):
    with pytest.raises(ColumnError, match=f"the target is called '{column}'"):
        label_issues(two_class_bank, target=column)


def test_amounts_are_no_classes_before_anything_is_fitted(own_bank):
    bank = Bank(own_bank)
    paths = bank.samples["path"]
    bank.label(
        pd.DataFrame({"path": paths, "age": 20 + np.arange(len(paths)) % 13, "price": 100 + np.arange(len(paths))})
    )
    with pytest.raises(ColumnError) as said:
        label_issues(bank, target="age", **OPTIONS)
    with pytest.raises(ColumnError) as told:
        fit(bank, target="age", **OPTIONS)
    assert str(said.value) == str(told.value)
    assert "--task classification for classes" in str(said.value)
    amounts = "column 'price' holds 40 different whole numbers in 40 rows: taken for amounts; --task classification"
    with pytest.raises(ColumnError, match=amounts):
        label_issues(bank, target="price", **OPTIONS)
    assert label_issues(bank, target="age", task="classification", folds=2, **OPTIONS).columns[-1] == "age"


def test_what_cannot_be_judged_is_an_error(own_bank):
    bank = Bank(own_bank)
    paths = bank.samples["path"]
    bank.label(pd.DataFrame({"path": paths, "one": "same", "share": np.linspace(0.01, 0.99, len(paths))}))
    bank.label(pd.DataFrame({"path": paths, "rare": ["odd", *["even"] * (len(paths) - 1)]}))
    for target, reason in (
        ("one", "at least two classes"),
        ("share", "class"),
        ("rare", "trains on one class"),
        ("none", "none"),
    ):
        with pytest.raises(FeatureBankError, match=reason):
            label_issues(bank, target=target, **OPTIONS)


def test_predictions_of_another_target_are_an_error(two_class_bank):
    oof = pd.DataFrame({"source": ["a"], "path": ["b"], "proba_north": [1.0]})
    with pytest.raises(ColumnError, match="no column 'proba_cat'; expected those of a fit of 'label' here"):
        label_issues(two_class_bank, oof=oof)


def test_predictions_of_another_bank_are_an_error(two_class_bank):
    oof = pd.DataFrame({"source": ["a"], "path": ["b"], "proba_cat": [0.0], "proba_dog": [1.0]})
    with pytest.raises(ColumnError, match="no sample of this bank"):
        label_issues(two_class_bank, oof=oof)


def test_without_cleanlab_the_error_names_the_extra(two_class_bank, monkeypatch):
    monkeypatch.setattr(label_errors, "find_spec", lambda name: None)
    with pytest.raises(NotInstalledError, match=r"pip install 'featurebank\[explore\]'"):
        label_issues(two_class_bank)


def test_a_class_of_a_single_sample_is_doubtful(flipped):
    bank, wrong = flipped
    bank.label(pd.DataFrame({"path": ["cat/05.png"], "label": ["catt"]}))
    found = label_issues(bank, **OPTIONS)
    assert found.loc[0, ["path", "given", "suggested", "quality"]].tolist() == ["cat/05.png", "catt", "cat", 0]
    assert set(found["path"][1:4]) == set(wrong)
