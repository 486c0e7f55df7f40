"""What the page says of chosen labels against random ones: where they pay, where they do not, where nobody knows."""

import re

import numpy as np
import pytest
from made_bank import make_bank, planted
from studio_run import start

from featurebank.explore.studio import evidence
from featurebank.explore.studio.chance import Draw
from featurebank.explore.studio.pool import make_pool
from featurebank.explore.studio.view import make_view


def digests(n):
    return np.array([number.to_bytes(32, "big") for number in range(1, n + 1)], "S32")


def said(X, y, is_chosen):
    """Return what is said where the images of the random tenth have labels, and those that are chosen."""
    n = len(X)
    draw = Draw.of(digests(n), 0)
    pool = make_pool(("all",), X.astype(np.float32), np.arange(n), n, 0)
    labels = np.where(is_chosen | draw.is_test, y.astype(str), None).astype(object)
    return evidence.paid(make_view(digests(n), pool, draw, labels), 0)


def misleading(random, n):
    """Rows that are of two kinds far apart, but for a fifth, near the middle, whose kinds are the other way round."""
    side, is_near = random.choice([-1, 1], n), np.arange(n) % 5 == 0
    X = random.normal(0, 0.3, (n, 6))
    X[:, 0] += np.where(is_near, 0.5, 5) * side
    return X, np.where(is_near, -side, side), is_near


def test_where_chosen_labels_teach_more_the_page_says_that_choosing_pays():
    random = np.random.default_rng(0)
    X, rare = planted(random, groups=30, size=10, width=31, away=12.0)
    common = random.normal(size=(300, 31)) + 12.0 * np.eye(31)[30]
    y = np.concatenate([rare, np.full(300, 30)])
    found = said(np.concatenate([X, common]), y, np.arange(len(y)) < len(X) + 10)  # a few of the common kind do
    assert found["ci95"][0] > 0
    number = found["labels"]
    assert re.fullmatch(
        rf"Choosing pays: \+\d+\.\d points \(95 % \+\d+\.\d\.\.\+\d+\.\d\) for {number} chosen labels against {number} "
        r"random\.",
        found["text"],
    )


def test_where_chosen_labels_teach_less_the_page_says_that_choosing_does_not_pay():
    X, y, is_near = misleading(np.random.default_rng(0), 400)
    found = said(X, y, is_near)
    assert found["ci95"][1] < 0
    assert re.fullmatch(
        r"Choosing does not pay here: -\d+\.\d points \(95 % -.*\.\.-.*\) for \d+ chosen labels against \d+ random; "
        r"the next images are drawn at random\.",
        found["text"],
    )


def test_where_there_is_nothing_to_learn_the_page_says_that_it_has_not_been_shown():
    random = np.random.default_rng(0)
    found = said(random.normal(size=(400, 6)), random.choice(["a", "b"], 400), random.uniform(size=400) < 0.2)
    assert found["ci95"][0] <= 0 <= found["ci95"][1]
    assert found["text"].startswith("Choosing has not been shown to pay: ")


@pytest.mark.slow
def test_where_what_the_model_is_unsure_of_misleads_the_page_says_so_and_goes_back_to_random_images(tmp_path):
    X, y, _ = misleading(np.random.default_rng(1), 1200)
    run = start(make_bank(tmp_path / "a.bank", X), [int(number).to_bytes(32, "big") for number in range(1200)], y)
    whys, text = [], ""
    while len(whys) < 400 and not text.startswith("Choosing does not pay here: "):
        items = run.get("next", count=10)["items"]
        whys += [each["why"] for each in items]
        answers = [{"digest": each["digest"], "label": str(run.truth[each["digest"]]), "seen": None} for each in items]
        assert run.post("labels", {"tab": "one", "answers": answers}).status_code == 200
        run.work.step()
        run.work.look(run.work.now, is_new=False)
        text = run.get("progress")["paid"]["text"]
        assert not text.startswith("Choosing pays")
    assert text.endswith("; the next images are drawn at random.")
    assert {"coverage", "uncertain"} <= set(whys)
    assert {each["why"] for each in run.get("next", count=20)["items"]} == {"any", "random"}
