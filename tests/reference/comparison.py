"""What intervals and tests should give, by loops over closed forms."""

import itertools
from collections.abc import Callable, Sequence

import numpy as np


def two_way_variances(values: np.ndarray) -> tuple[float, float, float]:
    """Variance of the grand mean of an array (row, column) as rows, columns and both are drawn: the jackknife's limits.

    Rows: var of row means / n; columns alike; both: interaction mean square / (rows · columns).
    """
    n_rows, n_columns = values.shape
    rows = [values[r].mean() for r in range(n_rows)]
    columns = [values[:, c].mean() for c in range(n_columns)]
    grand = values.mean()
    interaction = sum(
        (values[r, c] - rows[r] - columns[c] + grand) ** 2 for r in range(n_rows) for c in range(n_columns)
    ) / ((n_rows - 1) * (n_columns - 1))
    row_square = sum((row - grand) ** 2 for row in rows) / (n_rows - 1)
    column_square = sum((column - grand) ** 2 for column in columns) / (n_columns - 1)
    return row_square / n_rows, column_square / n_columns, interaction / (n_rows * n_columns)


def cluster_jackknife(values: Sequence[float], clusters: Sequence[object]) -> float:
    """Variance of the mean, leaving out one cluster at a time."""
    names = sorted(set(clusters), key=str)
    left = []
    for name in names:
        kept = [value for value, cluster in zip(values, clusters) if cluster != name]
        left.append(sum(kept) / len(kept))
    centre = sum(left) / len(left)
    return (len(names) - 1) / len(names) * sum((member - centre) ** 2 for member in left)


def exact_label_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Two-sided p of the difference of means over all divisions of the values into two sets of these sizes."""
    pooled = [*first, *second]
    observed = abs(np.mean(first) - np.mean(second))
    n_as_large = n = 0
    for chosen in itertools.combinations(range(len(pooled)), len(first)):
        member = [pooled[i] for i in chosen]
        other = [pooled[i] for i in range(len(pooled)) if i not in chosen]
        n += 1
        n_as_large += abs(np.mean(member) - np.mean(other)) >= observed - 1e-12
    return n_as_large / n


def exact_sign_test(differences: Sequence[float]) -> float:
    """Two-sided p of the mean difference over all changes of sign."""
    observed = abs(np.mean(differences))
    flipped = [
        abs(np.mean([sign * difference for sign, difference in zip(signs, differences)]))
        for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return sum(member >= observed - 1e-12 for member in flipped) / len(flipped)


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Adjusted p: the smallest p_(j) n / j over j not before its own rank."""
    order = sorted(range(len(p)), key=lambda i: p[i])
    adjusted = [0.0] * len(p)
    for position, i in enumerate(order):
        adjusted[i] = min(1.0, *(p[order[j]] * len(p) / (j + 1) for j in range(position, len(p))))
    return adjusted


def maximum_statistic(observed: np.ndarray, permuted: np.ndarray) -> list[float]:
    """Family-wise p of each statistic: permutations whose largest standardised deviation is as large."""
    whole = np.vstack([observed, permuted])
    standardised = np.zeros_like(whole)
    for column in range(whole.shape[1]):
        member = whole[:, column]
        standardised[:, column] = np.abs(member - member.mean()) / member.std()
    largest = [max(row) for row in standardised]
    return [np.mean([top >= score - 1e-9 for top in largest]) for score in standardised[0]]


def histogram_overlap(first: np.ndarray, second: np.ndarray, ratio: float) -> int:
    """How many values two samples have in common, bin by bin of a width of `ratio` from 1 upward and downward."""

    def bin_of(value: float) -> int:
        return int(np.floor(np.log(value) / np.log(ratio)))

    bins = [bin_of(value) for value in first]
    others = [bin_of(value) for value in second]
    return sum(min(bins.count(member), others.count(member)) for member in set(bins))


def rejections(test: Callable[[int], float], n: int, level: float = 0.05) -> float:
    """The part of `n` seeds whose p is at or below the level."""
    return sum(test(seed) <= level for seed in range(n)) / n
