"""The decision alone: every cell of the table, its borders, and what overrides it."""

from dataclasses import replace
from itertools import product

import pytest

from featurebank.explore.advice.probe import Interval
from featurebank.explore.advice.rules import (
    CEILING,
    HALF,
    LARGE,
    LARGE_CLASS,
    LEAD,
    NOISE,
    OVERFITS,
    RETRAIN,
    RETRAIN_CLASS,
    SENTENCES,
    TUNING,
    Evidence,
    decide,
    similarity_of,
    size_of,
)

DOUBTFUL = Interval(0.17, -0.02, 0.36)
RISING, FLAT = Interval(0.03, 0.02, 0.04), Interval(0.001, 0.0, 0.005)
LEADS, TRAILS = Interval(0.1, 0.08, 0.12), Interval(-0.05, -0.07, -0.03)
BASE = Evidence(
    n_samples=400,
    n_classes=2,
    smallest_class=200,
    largest_class=200,
    score=0.85,
    above_chance=Interval(0.35, 0.3, 0.4),
    lead=LEADS,
    lead_error=0.01,
    plateau=1.0,
    doubling=RISING,
    gap=0.05,
)
LARGE_BASE = replace(BASE, n_samples=4000, smallest_class=2000, largest_class=2000)
DIFFERENT = {"lead": TRAILS, "plateau": 0.75}
EARLY = {"lead": TRAILS, "plateau": 0.25}


def test_a_similarity_that_the_interval_leaves_in_doubt_is_called_probable():
    assert decide(BASE).cell == "small and similar"
    assert decide(replace(BASE, lead=DOUBTFUL)).cell == "small and probably similar"
    assert decide(replace(BASE, **DIFFERENT)).cell == "small and different"
    assert decide(replace(BASE, lead=Interval(0.0, -0.1, 0.1))).cell == "small and probably different"
    assert decide(replace(BASE, lead=None)).cell == "small, similarity unknown"


@pytest.mark.parametrize(
    ("evidence", "cell", "action", "alternative"),
    [
        (BASE, ("small", "similar"), "penultimate", None),
        (replace(BASE, **DIFFERENT), ("small", "different"), "lower", "top-blocks"),
        (replace(BASE, **DIFFERENT, doubling=FLAT), ("small", "different"), "top-blocks", "lower"),
        (replace(BASE, **DIFFERENT, doubling=FLAT, gap=0.2), ("small", "different"), "lower", "top-blocks"),
        (replace(BASE, **DIFFERENT, doubling=None), ("small", "different"), "lower", "top-blocks"),
        (LARGE_BASE, ("large", "similar"), "top-blocks", "penultimate"),
        (replace(LARGE_BASE, **DIFFERENT), ("large", "different"), "top-blocks", "all"),
        (replace(LARGE_BASE, **EARLY), ("large", "different"), "all", "retrain"),
        (replace(LARGE_BASE, **EARLY, n_samples=40_000), ("large", "different"), "retrain", "all"),
        (replace(LARGE_BASE, plateau=0.75, n_samples=40_000), ("large", "similar"), "top-blocks", "penultimate"),
        (replace(LARGE_BASE, **DIFFERENT, n_samples=40_000), ("large", "different"), "top-blocks", "all"),
        (replace(BASE, lead=None), ("small", "unknown"), "layers", "penultimate"),
        (replace(LARGE_BASE, lead=None), ("large", "unknown"), "layers", "penultimate"),
    ],
)
def test_every_cell_of_the_table(evidence, cell, action, alternative):
    verdict = decide(evidence)
    assert (verdict.size, verdict.similarity) == cell
    assert (verdict.action, verdict.alternative) == (action, alternative)
    assert verdict.because
    assert bool(verdict.trade) == (cell in {("small", "different"), ("large", "different"), ("large", "similar")})


def everything():
    """Evidence of every kind: sizes, curves, plateaus, gaps, chances, scores, tuning possible or not."""
    return [
        Evidence(n, k, n // max(1, k), n // max(1, k), score, chance, gain, 0.01, plateau, doubling, gap, *rest)
        for n, k, score, chance, gain, plateau, doubling, gap, rest in product(
            (10, LARGE, RETRAIN, 100_000),
            (0, 2, 50),
            (0.6, CEILING),
            (Interval(0.2, 0.1, 0.3), Interval(0.0, -0.1, 0.1)),
            (LEADS, TRAILS, None),
            (0.0, HALF, 1.0),
            (RISING, FLAT, None),
            (0.0, 0.5),
            ((None, ""), (0.5, "it cannot"), (NOISE, "")),
        )
    ]


def test_noise_is_never_learned_whatever_else_is_measured():
    for evidence in everything():
        verdict = decide(evidence)
        assert (verdict.action == "labels") == evidence.is_noise
        if verdict.action == "labels":
            assert verdict.alternative is None
            assert "noise" in verdict.because


@pytest.mark.parametrize(
    ("low", "shuffled", "is_noise"),
    [(0.01, None, False), (0.0, None, True), (-0.1, NOISE + 1e-9, True), (-0.1, NOISE, False), (-0.1, 0.005, False)],
)
def test_noise_is_what_neither_the_interval_nor_shuffling_tells_apart(low, shuffled, is_noise):
    assert replace(BASE, above_chance=Interval(0.05, low, 0.2), shuffled=shuffled).is_noise == is_noise


def test_nothing_costly_is_advised_for_what_is_solved_or_impossible():
    for evidence in everything():
        verdict = decide(evidence)
        if evidence.score >= CEILING or evidence.no_tuning:
            assert verdict.action not in TUNING
            assert verdict.alternative not in TUNING


def test_re_training_takes_images_and_a_curve_that_ends_early():
    for evidence in everything():
        verdict = decide(evidence)
        if verdict.action == "retrain":
            assert evidence.n_samples >= RETRAIN
            assert evidence.per_class >= RETRAIN_CLASS
            assert evidence.plateau < HALF
            assert verdict.alternative == "all"


def test_small_data_are_never_given_more_than_the_top_blocks():
    for evidence in everything():
        verdict = decide(evidence)
        if size_of(evidence) == "small":
            assert {verdict.action, verdict.alternative}.isdisjoint({"all", "retrain"})


def test_every_verdict_can_be_said():
    for evidence in everything():
        verdict = decide(evidence)
        assert verdict.action in SENTENCES
        assert verdict.alternative is None or verdict.alternative in SENTENCES
        assert verdict.action != verdict.alternative
        assert verdict.because[0].islower()
        assert not verdict.because.endswith(".")


@pytest.mark.parametrize(
    ("n", "k", "size"),
    [
        (LARGE - 1, 2, "small"),
        (LARGE, 2, "large"),
        (LARGE, 11, "small"),
        (LARGE_CLASS * 50, 50, "large"),
        (LARGE_CLASS * 50 - 1, 50, "small"),
        (LARGE, 0, "large"),
    ],
)
def test_the_borders_of_size(n, k, size):
    assert size_of(replace(BASE, n_samples=n, n_classes=k)) == size


@pytest.mark.parametrize(
    ("lead", "error", "similarity"),
    [
        (0.10, 0.02, "similar"),
        (0.10, 0.11, "different"),
        (LEAD, 0.0, "different"),
        (LEAD + 1e-9, 0.0, "similar"),
        (0.0, 0.0, "different"),
        (-0.1, 0.01, "different"),
    ],
)
def test_the_borders_of_similarity(lead, error, similarity):
    assert similarity_of(replace(BASE, lead=Interval(lead, -1, 1), lead_error=error)) == similarity


def test_the_border_of_overfitting():
    small = replace(BASE, **DIFFERENT, doubling=FLAT)
    assert decide(replace(small, gap=OVERFITS)).action == "top-blocks"
    assert decide(replace(small, gap=OVERFITS + 1e-9)).action == "lower"


def test_at_the_ceiling_the_cheapest_wins():
    assert decide(replace(LARGE_BASE, score=CEILING)).action == "penultimate"
    assert decide(replace(LARGE_BASE, **DIFFERENT, score=CEILING)).action == "lower"
    flat = decide(replace(LARGE_BASE, lead=Interval(0.0, -0.001, 0.001), plateau=0.0, score=0.999))
    assert (flat.cell, flat.action) == ("large, similarity unknown", "penultimate")
    assert decide(replace(BASE, lead=None, score=0.999)).action == "penultimate"
    assert decide(replace(LARGE_BASE, score=CEILING - 1e-9)).action == "top-blocks"


def test_at_the_ceiling_only_other_images_tell_more():
    assert decide(replace(LARGE_BASE, score=1.0)).alternative == "elsewhere"
    assert decide(replace(LARGE_BASE, score=CEILING - 1e-9)).alternative != "elsewhere"


def test_what_would_fit_but_cannot_be_done_is_said():
    verdict = decide(replace(LARGE_BASE, no_tuning="the images are gone"))
    assert (verdict.action, verdict.alternative) == ("penultimate", None)
    assert verdict.because == "fine-tune the top blocks would fit, but the images are gone"
    assert decide(replace(LARGE_BASE, **DIFFERENT, no_tuning="x")).action == "lower"
