"""How long cvPCA with ten splits takes at Stringer's size, beside the public code's arithmetic and matrix products.

Wanted: at least 10 × faster than the public arithmetic (a PCA of the wide matrix through scikit-learn for each
shuffle), agreeing to 1e-5 of the first eigenvalue; at most 2 × the matrix products that it needs. The public PCA is
fitted as published, for which scikit-learn chooses its randomised solver: an approximation, so that agreement is
measured against the same arithmetic with its exact solver. Both use the same halves of doubly centred responses, as the
public code takes off each stimulus's mean over units, and no unit's mean over stimuli. Two sums of products are given:
those of ten PCAs and projections done one by one (X₁X₁ᵀ and X₂X₁ᵀ for each split), and those that are left here (one
Gram matrix of all trials, and for each split X₂X₁ᵀ times 1024 eigenvectors); an eigendecomposition is no product.
Printed, not asserted: `make benchmarks`, on an idle machine, as eigendecompositions suffer most from other work.
"""

import os
import statistics
import time
from collections.abc import Callable

import numpy as np
import reference
from sklearn.decomposition import PCA

from neurovar.responses import split_kernel
from neurovar.statistics import kernels

N_STIMULI, N_UNITS, N_SPLITS, N_RANKS = 2800, 10_000, 10, 1024
N_RUNS = 3


def recording() -> np.ndarray:
    """A 1/n signal with as much noise, doubly centred: (stimulus, 2, unit) float32."""
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((N_STIMULI, N_UNITS), dtype=np.float32)
    signal /= np.sqrt(np.arange(1, N_UNITS + 1, dtype=np.float32))
    size = np.float32(signal.std())
    values = np.stack([signal + size * rng.standard_normal(signal.shape, dtype=np.float32) for _ in range(2)], axis=1)
    values -= values.mean(axis=0)
    values -= values.mean(axis=2, keepdims=True)
    return values


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def exact_public_cvpca(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    fitted = PCA(n_components=N_RANKS, svd_solver="full").fit(first.T)
    axes = first.T @ (fitted.components_.T / fitted.singular_values_)
    return ((first @ axes) * (second @ axes)).sum(axis=0)


def run(values: np.ndarray, halves: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """Seconds of everything, one after the other."""
    trials = values.reshape(-1, N_UNITS)
    first, second = halves[0]
    square, vectors = trials[:N_STIMULI] @ trials[:N_STIMULI].T, first[:, :N_RANKS].copy()
    return {
        "neurovar": seconds(lambda: kernels.cvpca(values, N_SPLITS, np.random.default_rng(0))),
        "public": seconds(lambda: [reference.public_cvpca(*pair) for pair in halves]),
        "one by one": N_SPLITS * seconds(lambda: (first @ first.T, second @ first.T)),
        "left": seconds(lambda: trials @ trials.T) + N_SPLITS * seconds(lambda: square @ vectors),
    }


def bench_cvpca() -> None:
    values, rng = recording(), np.random.default_rng(0)
    halves = [tuple(half - half.mean(axis=0) for half in split_kernel(values, rng)) for _ in range(N_SPLITS)]
    runs = [run(values, halves) for _ in range(N_RUNS)]
    print(
        f"\n{N_STIMULI} stimuli × 2 × {N_UNITS} units, {N_SPLITS} splits, {N_RUNS} runs, load {os.getloadavg()[0]:.1f}"
    )
    for name in runs[0]:
        times, ratios = [one[name] for one in runs], [one[name] / one["neurovar"] for one in runs]
        print(f"  {name}: {statistics.median(times):.1f} s, {statistics.median(ratios):.2f} × neurovar's time")
    expected = exact_public_cvpca(*halves[0]) / (N_STIMULI - 1)
    for name, got in {
        "neurovar": kernels.cross_spectrum(*halves[0]),
        "public": reference.public_cvpca(*halves[0]) / (N_STIMULI - 1),
    }.items():
        error = np.abs(got - expected)
        own = np.median(error / np.abs(expected))
        print(f"  {name} − exact: at most {error.max() / expected[0]:.1e} of λ₁, median {own:.1e} of each rank's own")
