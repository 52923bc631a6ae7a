"""Intervals and tests against enumeration, plain numpy, scipy and simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ssr_encoder.bench import statistics
from ssr_encoder.bench.statistics import difference, estimate, holm, interval, rank_trend, sign_flip_test, subject_means


def clusters(arrays) -> dict:
    return {f"s{i}": dict(enumerate(values)) for i, values in enumerate(arrays)}


def test_subjects_count_the_same_however_many_pictures_they_have():
    scores = clusters([[1.0] * 50, [3.0], [None, 5.0, math.nan, math.inf], [None]])
    assert subject_means(scores) == {"s0": 1.0, "s1": 3.0, "s2": 5.0}
    found = estimate(scores)
    assert (found.mean, found.subjects, found.pictures) == (3.0, 3, 52)


def test_interval_agrees_with_all_resamples_enumerated():
    means = [0.1, 0.5, 0.55, 0.9, 0.2]
    n = len(means)
    every = np.sort([np.mean(drawn) for drawn in itertools.product(means, repeat=n)])  # 3125
    tail = stats.norm.cdf(math.sqrt(n / (n - 1)) * stats.t.ppf(0.025, n - 1))
    assert interval(means) == pytest.approx(np.quantile(every, [tail, 1 - tail]), abs=0.02)
    usual = np.quantile(every, [0.025, 0.975])
    low, high = interval(means)
    assert low < usual[0] and high > usual[1]  # wider than the plain percentile interval, which is too narrow


def test_interval_of_many_subjects_is_scipys_bootstrap_over_clusters():
    rng = np.random.default_rng(1)
    scores = clusters(rng.normal(rng.normal(size=(200, 1)), 0.5, size=(200, 4)))
    arrays = np.array([list(of_subject.values()) for of_subject in scores.values()])  # (subjects, pictures)
    low, high = stats.bootstrap(
        (np.arange(200),), lambda drawn: arrays[drawn].mean(), vectorized=False, n_resamples=2000, method="BCa",
        rng=np.random.default_rng(2),
    ).confidence_interval  # fmt: skip
    found = estimate(scores)
    assert found.mean == pytest.approx(arrays.mean())
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.02)
    pictures = stats.bootstrap((arrays.ravel(),), np.mean, n_resamples=999, method="percentile").confidence_interval
    assert found.high - found.low > 1.5 * (pictures.high - pictures.low)  # pictures are not independent


@pytest.mark.parametrize("subjects", [8, 20])
def test_interval_covers_the_truth_as_often_as_it_says(subjects, monkeypatch):
    monkeypatch.setattr(statistics, "RESAMPLES", 499)
    rng = np.random.default_rng(3)
    tries, covered, plain = 400, 0, 0
    for _ in range(tries):
        data = rng.normal(rng.normal(size=(subjects, 1)), 0.7, size=(subjects, 3))
        found = estimate(clusters(data))
        covered += found.low <= 0 <= found.high
        naive = data.std(ddof=1) / math.sqrt(data.size) * 1.96
        plain += abs(data.mean()) <= naive
    assert 0.90 <= covered / tries <= 0.98
    assert plain / tries < 0.88  # what resampling pictures would have claimed


def test_sign_flip_test_agrees_with_all_patterns_enumerated():
    differences = np.array([0.3, -0.1, 0.25, 0.4, 0.05, 0.2, 0.31])
    patterns = np.array(list(itertools.product([-1, 1], repeat=len(differences))))
    flipped = np.abs((patterns * differences).mean(1))
    assert sign_flip_test(differences) == pytest.approx((flipped >= abs(differences.mean()) - 1e-12).mean())


def test_sign_flip_test_of_many_subjects_agrees_with_numpy():
    differences = np.random.default_rng(4).normal(0.4, 1, size=40)
    signs = np.random.default_rng(5).choice([-1, 1], size=(20_000, 40))
    expected = (np.abs((signs * differences).mean(1)) >= abs(differences.mean())).mean()
    assert sign_flip_test(differences) == pytest.approx(expected, abs=0.015)


def test_sign_flip_test_rejects_a_true_null_no_more_often_than_it_says():
    rng = np.random.default_rng(6)
    p = np.array([sign_flip_test(rng.standard_t(3, size=7)) for _ in range(300)])
    assert (p <= 0.05).mean() <= 0.09
    assert sign_flip_test([0.0, 0.0, 0.0]) == 1.0 and math.isnan(sign_flip_test([0.4]))


def test_difference_is_paired_by_picture_and_subject():
    rng = np.random.default_rng(7)
    level = rng.normal(0, 5, size=(10, 1))  # subjects differ far more than the runs do
    first = level + rng.normal(0.3, 0.1, size=(10, 4))
    second = level + rng.normal(0, 0.1, size=(10, 4))
    one, two = clusters(first), clusters(second)
    found = difference(one, two)
    expected = (first - second).mean(1)
    assert found.mean == pytest.approx(expected.mean())
    assert found.p == pytest.approx(2 / 2**10) and found.low > 0.2 and found.high < 0.4
    reverse = difference(two, one)
    assert (reverse.mean, reverse.p) == pytest.approx((-found.mean, found.p))
    assert estimate(one).high - estimate(one).low > 10 * (found.high - found.low)

    one["s0"][1] = two["s0"][2] = None  # only pictures with both scores, only subjects with such
    two["s3"] = dict.fromkeys(range(4))
    del two["s4"]
    found = difference(one, two)
    assert (found.subjects, found.pictures) == (8, 30)
    kept = [(first - second)[0, [0, 3]].mean(), *np.delete(expected, [0, 3, 4])]
    assert found.mean == pytest.approx(np.mean(kept))


def test_the_same_scores_give_the_same_figures_in_any_order():
    rng = np.random.default_rng(8)
    scores = clusters(rng.normal(size=(9, 2)))
    assert estimate(scores) == estimate(scores)
    again = estimate(dict(reversed(scores.items())))
    assert (again.low, again.high) == (estimate(scores).low, estimate(scores).high)


def test_few_subjects_and_equal_ones():
    one = estimate({"a": {0: 0.5, 1: 0.7}})
    assert one.mean == pytest.approx(0.6) and math.isnan(one.low) and one.subjects == 1
    none = estimate({"a": {0: None}})
    assert math.isnan(none.mean) and none.subjects == none.pictures == 0
    same = estimate(clusters([[0.5]] * 6))
    assert (same.low, same.high) == (0.5, 0.5)


def test_rank_trend_agrees_with_scipy():
    rng = np.random.default_rng(9)
    x = rng.integers(1, 9, size=20)  # with ties
    y = np.log(x) + rng.normal(0, 1, size=20)
    values, means = ({f"s{i}": float(v) for i, v in enumerate(of)} for of in (x, y))
    rho, p = rank_trend(values, {**means, "other": 1.0})
    expected = stats.spearmanr(x, y)
    assert rho == pytest.approx(expected.statistic) and p == pytest.approx(expected.pvalue, abs=0.01)
    assert all(map(math.isnan, rank_trend({"s0": 1.0, "s1": 2.0}, means)))
    assert all(map(math.isnan, rank_trend(dict.fromkeys(values, 3.0), means)))


def test_holm_on_the_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    corrected = holm([0.02, math.nan, 0.04])
    assert corrected[0] == 0.04 and math.isnan(corrected[1]) and corrected[2] == 0.04


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_between_uncorrected_and_bonferroni(p_values):
    corrected = holm(p_values)
    for p, value in zip(p_values, corrected, strict=True):
        assert p <= value <= min(1.0, p * len(p_values)) + 1e-12
    ranked = [value for _, value in sorted(zip(p_values, corrected, strict=True))]
    assert ranked == sorted(ranked)
    assert corrected[p_values.index(min(p_values))] == pytest.approx(min(1.0, min(p_values) * len(p_values)))
