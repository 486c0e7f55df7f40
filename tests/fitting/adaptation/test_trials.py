import numpy as np
import pytest
from domain_maker import moved, two_domains
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from featurebank.errors import TopModelError
from featurebank.fitting.adaptation.adapters import ADAPTATIONS, Adaptation
from featurebank.fitting.adaptation.domains import UNKNOWN, Domains
from featurebank.fitting.adaptation.trials import SCORERS, TrialSettings, check_scorer, outputs_distance, run_trial
from featurebank.topmodels.folds import fold_numbers
from featurebank.topmodels.transforms import normalization

CLASSES = np.array(["cat", "dog"])


def make(move=None, n=120, **how):
    X, y, is_source = two_domains(n, n, move=move, **how)
    return Domains(X, y, CLASSES, is_source)


def settings(scorer="outputs", target_labels=0, model=None):
    return TrialSettings(normalization("standardize"), model or LogisticRegression(), scorer, target_labels, 0)


def adaptation(name):
    return Adaptation(name, {"n_components": 4} if name == "subspace" else {})


@pytest.mark.parametrize("name", ADAPTATIONS)
def test_target_rows_of_the_test_part_are_unknown_to_the_adaptation(name):
    domains = make(moved)
    fold = domains.folds(4, 0)[0]
    before = run_trial(adaptation(name), settings(), domains, fold)
    test = fold[1]
    spoilt = test[~domains.is_source[test]][5:]
    X = domains.X.copy()
    X[spoilt] = 1e6
    after = run_trial(adaptation(name), settings(), Domains(X, domains.y, CLASSES, domains.is_source), fold)
    kept = ~np.isin(test, spoilt)
    np.testing.assert_array_equal(before.predicted[kept], after.predicted[kept])
    np.testing.assert_array_equal(before.scores, after.scores)


@pytest.mark.parametrize("scorer", SCORERS)
def test_labels_of_the_target_take_no_part(scorer):
    domains = make(moved)
    blind = Domains(domains.X, np.where(domains.is_source, domains.y, UNKNOWN), CLASSES, domains.is_source)
    folds = domains.folds(4, 0)
    np.testing.assert_array_equal(fold_numbers(folds, 240), fold_numbers(blind.folds(4, 0), 240))
    for name in ADAPTATIONS:
        one, two = (run_trial(adaptation(name), settings(scorer), each, folds[0]) for each in (domains, blind))
        np.testing.assert_array_equal(one.predicted, two.predicted)
        assert one.unsupervised == two.unsupervised


def test_labels_of_test_rows_take_no_part():
    domains = make(moved)
    fold = domains.folds(4, 0)[0]
    y = domains.y.copy()
    y[fold[1]] = 1 - y[fold[1]]
    for name in ADAPTATIONS:
        one, two = (
            run_trial(adaptation(name), settings(), Domains(domains.X, each, CLASSES, domains.is_source), fold)
            for each in (domains.y, y)
        )
        np.testing.assert_array_equal(one.predicted, two.predicted)


def test_the_scorer_prefers_what_recovers_the_accuracy():
    domains = make(moved, n=200)
    folds = domains.folds(4, 0)
    right, score = {}, {}
    for name in ADAPTATIONS:
        trials = [run_trial(adaptation(name), settings(), domains, fold) for fold in folds]
        hits = [
            (each.predicted == domains.y[test])[~domains.is_source[test]]
            for each, (_, test) in zip(trials, folds, strict=True)
        ]
        right[name], score[name] = np.concatenate(hits).mean(), np.mean([each.unsupervised for each in trials])
    assert max(right["none"], right["reweight"]) < 0.65
    for name in ("coral", "subspace", "ot"):
        assert right[name] > 0.95
        assert score[name] > max(score["none"], score["reweight"]) + 0.2


def test_few_labels_are_of_the_training_part_and_so_many_a_class():
    domains = make()
    train, test = domains.folds(4, 0)[0]
    learned = settings(target_labels=3).learned(domains, train)
    assert not np.isin(learned, test).any()
    few = learned[~domains.is_source[learned]]
    assert np.bincount(domains.y[few]).tolist() == [3, 3]
    np.testing.assert_array_equal(np.sort(learned[domains.is_source[learned]]), train[domains.is_source[train]])
    assert not np.array_equal(
        few, TrialSettings([], None, "outputs", 3, 1).learned(domains, train)[-6:]
    )  # the seed draws
    unlabelled = Domains(domains.X, np.where(domains.is_source, domains.y, UNKNOWN), CLASSES, domains.is_source)
    assert domains.is_source[settings(target_labels=3).learned(unlabelled, train)].all()


def test_the_effective_number_of_weighted_rows():
    same = run_trial(adaptation("reweight"), settings(), make(), make().folds(4, 0)[0]).effective
    far = run_trial(adaptation("reweight"), settings(), make(moved), make(moved).folds(4, 0)[0]).effective
    assert 30 < same <= 90  # of the 90 training rows
    assert far < same / 2
    assert run_trial(adaptation("coral"), settings(), make(), make().folds(4, 0)[0]).effective is None


def test_outputs_that_differ_are_apart():
    one = np.arange(10.0)
    assert outputs_distance(one, one) == 0
    assert outputs_distance(one, one + 100) == 1
    assert outputs_distance(np.column_stack([one, one]), np.column_stack([one, one + 100])) == 0.5


def test_a_scorer_of_probabilities_wants_them():
    with pytest.raises(TopModelError, match="'entropy' needs probabilities, which SVC has not; choose outputs"):
        check_scorer("entropy", SVC())
    with pytest.raises(TopModelError, match="no unsupervised scorer 'circle'; did you mean circular"):
        check_scorer("circle", SVC())
    for name in ("outputs", "circular"):
        check_scorer(name, SVC())
        assert np.isfinite(
            run_trial(adaptation("coral"), settings(name, model=SVC()), make(), make().folds(4, 0)[0]).unsupervised
        )


def test_a_model_without_scores_is_refused():
    class Mute(BaseEstimator):
        def fit(self, X, y):
            self.fitted_ = True
            return self

        def predict(self, X):
            return np.repeat(CLASSES[:1], len(X))

    with pytest.raises(TopModelError, match="Mute gives neither probabilities nor decision values"):
        run_trial(adaptation("none"), settings(model=Mute()), make(), make().folds(4, 0)[0])


def test_several_classes_and_one_that_only_the_target_has():
    random = np.random.default_rng(0)
    y = np.arange(300) % 3
    X = np.eye(3)[y] * 6 + random.normal(size=(300, 3))
    is_source = np.arange(300) < 150
    y[~is_source] += y[~is_source] == 2  # class 3 in place of 2, and elsewhere
    X[y == 3] -= [0, 0, 12]
    domains = Domains(X, y, np.array(["a", "b", "c", "d"]), is_source)
    fold = domains.folds(5, 0)[0]
    for name in ("none", "coral", "ot"):
        trial = run_trial(Adaptation(name), settings(), domains, fold)
        scored, true = ~is_source[fold[1]], y[fold[1]]
        assert 3 not in trial.predicted
        assert name != "none" or (trial.predicted == true)[scored & (true != 3)].all()
    few = run_trial(Adaptation("none"), settings(target_labels=10), domains, fold)
    assert 3 in few.predicted


def test_folds_that_lack_a_domain_are_refused():
    domains = make()
    with pytest.raises(TopModelError, match="lack a domain"):
        Domains(domains.X, domains.y, CLASSES, domains.is_source, domains.is_source.astype(int)).folds(2, 0)
