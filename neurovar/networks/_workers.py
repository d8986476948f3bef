"""Work in single-threaded worker processes."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from joblib import Parallel, delayed, parallel_config

Result = TypeVar("Result")


def in_workers(work: Sequence[Callable[[], Result]], n_jobs: int) -> Iterator[Result]:
    """The result of each piece of work, in order, whatever the number of processes.

    Each piece runs on one thread, in this process too: how a sum is split over threads decides how it rounds, so that
    results would otherwise depend on the number of workers. On networks of a few thousand units processes also gain
    more than threads do.

    Parameters
    ----------
    work : sequence of callables
        Functions of no arguments that can be pickled, such as `functools.partial` of a function and its arguments.
        NumPy arrays above 1 MB among these are put into memory that all processes share; a process that writes to one
        writes to a copy.
    n_jobs : int
        Worker processes, as joblib counts them: 1 works in this process, −1 takes every core.

    Yields
    ------
    Result
        What each piece returns, as soon as those before it are done.

    Examples
    --------
    >>> from functools import partial
    >>> list(in_workers([partial(pow, 2, 3), partial(pow, 3, 2)], n_jobs=1))
    [8, 9]
    """
    with parallel_config(backend="loky", inner_max_num_threads=1):
        # "c" is copy-on-write: torch.from_numpy warns of arrays that are only readable
        parallel = Parallel(n_jobs=n_jobs, mmap_mode="c", return_as="generator")
        yield from parallel(delayed(_on_one_thread)(piece) for piece in work)


def _on_one_thread(work: Callable[[], Result]) -> Result:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return work()
    finally:
        torch.set_num_threads(before)
