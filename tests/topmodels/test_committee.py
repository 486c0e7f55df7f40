"""Committees: who is chosen, what they score on rows they were not chosen on, and what the models say together."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import Pipeline

from featurebank.errors import TopModelError
from featurebank.topmodels.candidates import best_of_each, mean_of
from featurebank.topmodels.committees.models import CommitteeClassifier, CommitteeRegressor, probabilities_of
from featurebank.topmodels.committees.search import GivenMember
from featurebank.topmodels.committees.selection import Part, mean_answer, select, unseen_answers
from featurebank.topmodels.search import TopModelSearchCV

MODELS = {"svm": {"C": [1.0, 10.0]}, "lda": {}}
BLOCKS = {"upper": slice(0, 32), "lower": slice(32, 64)}


def closeness(truth):
    return lambda said: -float(((said - truth) ** 2).mean())


@pytest.fixture(scope="module")
def digits():
    """Digits under noise, whose upper and lower half tell different things."""
    X, y = load_digits(n_class=4, return_X_y=True)
    noise = np.random.default_rng(0).normal(scale=8, size=(300, 64))
    return (X[:300] + noise).astype(np.float32), y[:300]


@pytest.fixture(scope="module")
def search(digits):
    return TopModelSearchCV(MODELS, blocks=BLOCKS, ensemble=True, cv=3, n_jobs=1).fit(*digits)


def test_greedy_selection_finds_the_mixture_by_hand():
    truth = np.zeros(6)
    first, second, third = np.full(6, 1.0), np.full(6, -0.5), np.full(6, 9.0)
    weights = select([first, second, third], closeness(truth))
    assert weights.tolist() == pytest.approx([1 / 3, 2 / 3, 0])  # which cancel


def test_a_member_that_brings_nothing_is_not_drawn():
    truth = np.arange(5.0)
    assert select([truth + 0.1, truth + 0.5], closeness(truth)).tolist() == [1, 0]


def test_at_most_so_many_members():
    random, truth = np.random.default_rng(0), np.zeros(400)
    answers = [random.normal(size=400) for _ in range(8)]
    assert np.count_nonzero(select(answers, closeness(truth))) > 3
    assert np.count_nonzero(select(answers, closeness(truth), members=3)) == 3
    assert np.count_nonzero(select(answers, closeness(truth), members=1)) == 1


def test_probabilities_in_float32_add_up_to_one_in_a_committee():
    X, y = load_digits(n_class=3, return_X_y=True)
    models = {"logreg": {"C": [0.1]}, "lda": {}}
    halves = {"X": slice(0, 64), "upper": slice(0, 32)}
    found = TopModelSearchCV(models, blocks=halves, ensemble=True, scoring="neg_log_loss", cv=3, n_jobs=1)
    found.fit(X[:150].astype(np.float32), y[:150])
    assert not [each for each in found.warnings_ if "sum to one" in each]
    assert np.abs(found.committee_.predictions[0].proba.sum(axis=1) - 1).max() < 1e-12


def test_a_part_of_the_rows_has_no_say_in_what_answers_for_it():
    truth, first = np.zeros(4), np.array([True, True, False, False])
    knows_first, knows_second = np.where(first, 0.0, 1.0), np.where(first, 1.0, 0.0)
    parts = [Part(~first, first, [knows_first, knows_second]), Part(first, ~first, [knows_first, knows_second])]

    def choose(answers, rows):
        return select([each[rows] for each in answers], closeness(truth[rows]))

    assert unseen_answers(parts, choose).tolist() == [1, 1, 1, 1]  # each part is answered by who is bad at it


def test_the_committee_is_a_candidate_scored_by_its_own_answers(search, digits):
    y, found = digits[1], search.committee_
    assert found.candidate in search.candidates_
    assert search.best_candidate_ is found.candidate
    assert search.oof_.predicted.tolist() == search.classes_[search.oof_.proba.argmax(axis=1)].tolist()
    by_fold = [np.mean(search.oof_.predicted[search.oof_.fold == fold] == y[test]) for fold, (_, test) in folds(search)]
    assert found.candidate.fold_scores == pytest.approx(by_fold)
    assert found.report["log_loss"]["committee"] == pytest.approx(log_loss(search.oof_.true, search.oof_.proba))
    single = max(search.candidates_[:-1], key=mean_of)
    assert found.report["difference"] == pytest.approx(found.candidate.mean - single.mean)
    assert found.report["ci95"][0] < found.report["difference"] < found.report["ci95"][1]


def folds(search):
    return list(enumerate(search.folds_))


def test_one_member_at_most_of_each_features_and_model(search):
    members = search.committee_.report["members"]
    kinds = {(tuple(each["features"]), each["model"]) for each in members}
    assert 1 < len(members) == len(kinds) <= 4
    assert sum(each["weight"] for each in members) == pytest.approx(1)
    best = best_of_each(search.candidates_[:-1], lambda each: (each.features, each.model), mean_of)
    for each in members:
        assert each["mean"] == best[tuple(each["features"]), each["model"]].mean


def test_what_is_shipped_is_the_mean_of_its_members(search, digits):
    X = digits[0]
    committee = search.best_estimator_.steps[-1][1]
    calibrators = [each and each.estimator for each in committee.calibrators]
    each = [probabilities_of(*pair, X) for pair in zip(committee.members_, calibrators, strict=True)]
    assert np.abs(search.predict_proba(X) - mean_answer(each, np.array(committee.weights))).max() < 1e-12
    assert np.allclose(search.predict_proba(X).sum(axis=1), 1)
    again = clone(search.best_estimator_).fit(*digits)  # as a learning curve does
    assert np.allclose(again.predict_proba(X), search.predict_proba(X))


def test_a_committee_of_one_is_no_candidate(digits):
    search = TopModelSearchCV(MODELS, blocks=BLOCKS, ensemble=True, members=1, cv=3, n_jobs=1).fit(*digits)
    assert search.committee_.report["sentence"].startswith("a committee did not pay")
    assert {each.model for each in search.candidates_} == {"svm", "lda"}
    assert search.best_model_ == "svm"


def test_on_random_labels_a_committee_is_at_chance():
    random, scores = np.random.default_rng(0), []
    for _ in range(4):
        X, y = random.normal(size=(120, 12)), np.arange(120) % 2
        blocks = {str(i): slice(3 * i, 3 * i + 3) for i in range(4)}
        search = TopModelSearchCV(["lda", "ridge"], blocks=blocks, ensemble=True, cv=3, n_jobs=1, refit=False)
        scores.append(search.fit(X, random.permutation(y)).committee_.candidate.mean)
    assert abs(np.mean(scores) - 0.5) < 3 * 0.5 / np.sqrt(4 * 120)


def test_models_that_are_wrong_out_of_fold_are_not_turned_round():
    X, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 2
    twins, labels = np.vstack([X, X]), np.r_[y, 1 - y]  # whoever learned a row's twin says the wrong class of it
    blocks = {"left": slice(0, 4), "right": slice(4, 8)}
    found = TopModelSearchCV({"svm": {"C": [10.0]}}, blocks=blocks, ensemble=True, cv=3, n_jobs=1).fit(twins, labels)
    assert max(each.mean for each in found.candidates_) < 0.35
    assert found.committee_.candidate.mean <= 0.5


def test_one_fold_repeats_and_the_scoring_asked_for(digits):
    X, y = digits
    one = TopModelSearchCV(MODELS, blocks=BLOCKS, ensemble=True, cv=[(np.arange(200), np.arange(200, 300))], n_jobs=1)
    found = one.fit(X, y).committee_
    assert len(found.candidate.fold_scores) == 1
    assert "ci95" not in found.report
    twice = [each for seed in (0, 1) for each in _folds(y, seed)]
    other = TopModelSearchCV("lda", blocks=BLOCKS, ensemble=True, cv=twice, scoring="balanced_accuracy", n_jobs=1).fit(
        X, y
    )
    assert len(other.committee_.candidate.fold_scores) == 4
    assert 0.7 < other.committee_.candidate.mean < 1


def _folds(y, seed):
    half = np.random.default_rng(seed).permutation(len(y)) % 2 == 0
    return [(np.flatnonzero(half), np.flatnonzero(~half)), (np.flatnonzero(~half), np.flatnonzero(half))]


def test_numbers_and_several_labels():
    random = np.random.default_rng(0)
    X = random.normal(size=(150, 6))
    number = X[:, 0] + X[:, 3] + 0.1 * random.normal(size=150)
    blocks = {"a": slice(0, 3), "b": slice(3, 6)}
    options = {"blocks": blocks, "ensemble": True, "cv": 3, "n_jobs": 1}
    search = TopModelSearchCV("ridge", task="regression", **options).fit(X, number)
    assert search.best_model_ == "committee"  # each half knows one part of the sum
    assert np.allclose(search.predict(X), search.best_estimator_.predict(X))
    both = np.column_stack([X[:, 0] + X[:, 3] > 0, X[:, 1] - X[:, 4] > 0]).astype(int)
    labels = TopModelSearchCV("linear-svm", task="multilabel", **options).fit(X, both)
    assert labels.best_model_ == "committee"
    assert set(np.unique(labels.predict(X))) == {0, 1}
    assert labels.predict(X).shape == (150, 2)


def test_a_given_model_is_scored_on_the_same_rows_and_refused_where_it_learned_from_them(digits):
    X, y = digits
    model = Pipeline([("model", GaussianNB())]).fit(X, y)
    sure = 0.01 + 0.96 * np.eye(4)[y]  # it knows nearly everything
    given = GivenMember("tuned", ("lower",), model, None, sure)
    search = TopModelSearchCV({"lda": {}}, blocks=BLOCKS, ensemble=True, given=[given], cv=3, n_jobs=1).fit(X, y)
    assert [each["model"] for each in search.committee_.report["members"]] == ["tuned"]
    assert search.best_score_ == 1.0
    assert (search.predict(X) == model.predict(X)).all()
    sure[7] = np.nan
    with pytest.raises(TopModelError, match="tuned learned from 1 of the samples that are tested"):
        TopModelSearchCV({"lda": {}}, blocks=BLOCKS, ensemble=True, given=[given], cv=3, n_jobs=1).fit(X, y)


def test_members_want_a_committee(digits):
    with pytest.raises(TopModelError, match="expected ensemble=True"):
        TopModelSearchCV(MODELS, members=2).fit(*digits)
    with pytest.raises(TopModelError, match="expected at least 1"):
        TopModelSearchCV(MODELS, ensemble=True, members=0).fit(*digits)


def test_committees_as_estimators():
    X, y = np.random.default_rng(0).normal(size=(30, 3)), np.arange(30) % 3
    members = [Pipeline([("model", GaussianNB())]), Pipeline([("model", LogisticRegression())])]
    committee = CommitteeClassifier(members, [0.25, 0.75]).fit(X, y, sample_weight=np.ones(30))
    expected = 0.25 * members[0].fit(X, y).predict_proba(X) + 0.75 * members[1].fit(X, y).predict_proba(X)
    assert np.allclose(committee.predict_proba(X), expected)
    assert committee.n_features_in_ == 3
    numbers = CommitteeRegressor([Pipeline([("model", Ridge())])], [1.0]).fit(X, y)
    assert np.allclose(numbers.predict(X), Ridge().fit(X, y).predict(X))
    with pytest.raises(ValueError, match="features"):
        committee.predict(X[:, :2])
