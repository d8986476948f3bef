"""Spoil files of every importer and load them: each must end in valid responses or a ValueError naming the file.

Never a crash, a hang, a gigabyte, a pickle, a command, a connection or a file written elsewhere. Run as
`python tests/fuzz/run.py --files 20000 --seed 0`; a file that fails is kept in the output folder, with its number.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

TESTS = Path(__file__).parents[1]
SOURCES = tuple(sorted(path.stem for path in (TESTS / "fixtures").glob("*.py")))
LIMIT_S, LIMIT_BYTES, HARD_LIMIT_BYTES = 10.0, 1 << 30, 12 << 30
N_ORIGINALS = 4
FORBIDDEN_EVENTS = ("pickle.find_class", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect")
WRITING_EVENTS = {"os.mkdir": (0,), "os.rename": (0, 1), "os.symlink": (1,), "os.link": (1,), "os.remove": (0,)}


@dataclass(frozen=True)
class Outcome:
    """What became of one file: valid, refused, or the failure."""

    case: int
    source: str
    kind: str
    result: str
    detail: str = ""
    seconds: float = 0.0
    growth_mb: float = 0.0

    @property
    def failed(self) -> bool:
        return self.result not in ("valid", "refused")


class Watch:
    """An audit hook that notes what no importer may do, and files opened for writing outside the case's folder."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.seen: list[str] = []
        sys.addaudithook(self._on_event)

    def _on_event(self, event: str, args: tuple[Any, ...]) -> None:
        if self.folder is None:
            return
        if event in FORBIDDEN_EVENTS and not self._of_dask(event, args):
            self.seen.append(f"{event}{args[:1]}")
        elif event == "open" and self._writes(args):
            self._note(event, args[0])
        else:
            for at in WRITING_EVENTS.get(event, ()):
                self._note(event, args[at])

    @staticmethod
    def _of_dask(event: str, args: tuple[Any, ...]) -> bool:
        """Whether dask names one of its own tasks: it pickles them, never anything that a file has."""
        return event == "pickle.find_class" and args[0].split(".")[0] in ("dask", "neurovar")

    @staticmethod
    def _writes(args: tuple[Any, ...]) -> bool:
        flags = args[2] if isinstance(args[2], int) else 0
        return isinstance(args[0], str | bytes) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))

    def _note(self, event: str, path: Any) -> None:
        inside = self.folder is not None and Path(os.fsdecode(path)).resolve().is_relative_to(self.folder)
        if not inside and os.fsdecode(path) != os.devnull:
            self.seen.append(f"{event} {path!r}")


def spoiled_file(module: Any, folder: Path, rng: np.random.Generator) -> tuple[Path, str]:
    """A spoiled file of this importer in `folder`, and how it was spoiled."""
    from fuzz.mutations import spoil_archive, spoil_bytes, spoil_content

    content = module.content(np.random.default_rng(rng.integers(N_ORIGINALS)))
    kind = rng.choice(["content", "bytes"])
    if kind == "content":
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return module.write(folder, spoil_content(content, rng)), "content"
        except Exception:  # the real writer refuses such content: spoil the bytes instead
            shutil.rmtree(folder)
            folder.mkdir()
    path = module.write(folder, content)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    chosen = files[rng.integers(len(files))]
    if zipfile.is_zipfile(chosen) and rng.random() < 0.4:
        spoil_archive(chosen, rng)
        return path, "archive"
    chosen.write_bytes(spoil_bytes(chosen.read_bytes(), rng))
    return path, "bytes"


def load(module: Any, path: Path) -> tuple[str, str]:
    """Load a spoiled file: the result and, where it failed, why."""
    from neurovar import responses

    try:
        loaded = module.load(path)
        responses.validate(loaded, time="time" in loaded.dims)
        np.asarray(loaded.values)
        return "valid", ""
    except ValueError as error:
        named = path.name in str(error)
        return ("refused", str(error)[:300]) if named else ("unnamed", f"{type(error).__name__}: {error}")
    except Exception:
        return "raised", traceback.format_exc()[-3000:]


def one_case(case: int, seed: int, watch: Watch, root: Path) -> Outcome:
    rng = np.random.default_rng([seed, case])
    source = SOURCES[case % len(SOURCES)]
    module = importlib.import_module(f"fixtures.{source}")
    folder = root / f"case{case}"
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier run
    folder.mkdir()
    path, kind = spoiled_file(module, folder, rng)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    watch.folder, watch.seen = folder.resolve(), []
    result, detail = load(module, path)
    watch.folder = None
    seconds = time.perf_counter() - start
    growth = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    if watch.seen:
        result, detail = "forbidden", "; ".join(watch.seen)
    elif seconds > LIMIT_S:
        result, detail = "slow", f"{seconds:.1f} s"
    elif growth > LIMIT_BYTES:
        result, detail = "large", f"{growth / 1e6:.0f} MB"
    outcome = Outcome(case, source, kind, result, detail, seconds, growth / 1e6)
    if not outcome.failed:
        shutil.rmtree(folder)
    return outcome


def work(cases: range, seed: int, root: Path, channel: Connection) -> None:
    """One worker: say which case begins, then what became of it."""
    resource.setrlimit(resource.RLIMIT_AS, (HARD_LIMIT_BYTES, HARD_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.path.insert(0, str(TESTS))
    warnings.simplefilter("ignore")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # HDF5 and zlib complain there
    watch = Watch()
    _import_everything()
    for case in cases:
        channel.send(case)
        channel.send(one_case(case, seed, watch, root))


def _import_everything() -> None:
    """Load one good file with every importer, so that what is imported late does not count as the file's doing."""
    for source in SOURCES:
        module = importlib.import_module(f"fixtures.{source}")
        with tempfile.TemporaryDirectory() as folder:
            module.load(module.write(Path(folder), module.content(np.random.default_rng(0))))


class Worker:
    """A process with its own share of the cases; replaced when a file crashes or hangs it."""

    def __init__(self, cases: range, seed: int, root: Path) -> None:
        self.cases, self.seed, self.root = cases, seed, root
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.channel, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=work, args=(self.cases, self.seed, self.root, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.case, self.since = None, time.monotonic()

    def outcomes(self) -> Iterator[Outcome]:
        """What has come since; a crash or a hang counts against the case that was under way."""
        try:
            while self.channel.poll():
                message = self.channel.recv()
                self.since = time.monotonic()
                if isinstance(message, int):
                    self.case = message
                else:
                    self.cases = self.cases[1:]
                    yield message
        except EOFError:
            if self.cases:
                self.process.join()
                yield self._lost("crashed", f"exit status {self.process.exitcode}")
        if self.cases and time.monotonic() - self.since > 6 * LIMIT_S:
            self.process.kill()
            yield self._lost("hung", f"over {6 * LIMIT_S:.0f} s")

    def _lost(self, result: str, detail: str) -> Outcome:
        case, self.cases = self.cases[0], self.cases[1:]
        if self.cases:
            self._start()
        return Outcome(case, SOURCES[case % len(SOURCES)], "?", result, detail)


def run(n_files: int, *, seed: int, jobs: int, root: Path) -> list[Outcome]:
    """Every case's outcome; the same cases whatever the number of jobs."""
    workers = [Worker(range(first, n_files, jobs), seed, root) for first in range(min(jobs, n_files))]
    outcomes: list[Outcome] = []
    while any(worker.cases for worker in workers):
        wait([worker.channel for worker in workers if worker.cases], timeout=1.0)
        for worker in workers:
            if worker.cases:
                outcomes.extend(worker.outcomes())
    return sorted(outcomes, key=lambda outcome: outcome.case)


def summary(outcomes: list[Outcome]) -> str:
    """A line for each importer and one for each failure."""
    lines = []
    for source in SOURCES:
        of_source = [outcome for outcome in outcomes if outcome.source == source]
        results = Counter(outcome.result for outcome in of_source)
        counted = ", ".join(f"{n} {result}" for result, n in sorted(results.items()))
        slowest = max((outcome.seconds for outcome in of_source), default=0.0)
        largest = max((outcome.growth_mb for outcome in of_source), default=0.0)
        lines.append(f"{source}: {counted}; slowest {slowest:.2f} s, largest growth {largest:.0f} MB")
    lines += [f"case {o.case} ({o.source}, {o.kind}): {o.result}: {o.detail}" for o in outcomes if o.failed]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--output", type=Path, help="folder for the outcomes and the files that failed")
    options = parser.parse_args()
    root = options.output or Path(tempfile.mkdtemp(prefix="neurovar-fuzz-"))
    root.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    outcomes = run(options.files, seed=options.seed, jobs=options.jobs, root=root)
    (root / "outcomes.json").write_text(json.dumps([asdict(outcome) for outcome in outcomes]), encoding="utf-8")
    failures = sum(outcome.failed for outcome in outcomes)
    print(summary(outcomes))
    print(f"{len(outcomes)} files, seed {options.seed}, {failures} failures, {time.monotonic() - start:.0f} s; {root}")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
