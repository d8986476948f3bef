"""Work in processes of one thread each."""

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from joblib import Parallel, delayed, parallel_config
from threadpoolctl import threadpool_limits

Result = TypeVar("Result")


def in_workers(function: Callable[..., Result], calls: Iterable[tuple[Any, ...]], n_jobs: int) -> list[Result]:
    """The result of each call, in order, whatever the number of processes.

    Each runs on one thread, in this process too: how a sum is split over threads decides how it rounds, so that results
    would otherwise depend on the number of processes.

    Examples
    --------
    >>> in_workers(pow, [(2, 3), (3, 2)], n_jobs=1)
    [8, 9]
    """
    with threadpool_limits(1), parallel_config(backend="loky", inner_max_num_threads=1):
        return Parallel(n_jobs=n_jobs)(delayed(function)(*call) for call in calls)
