"""The sessions of `cowley2023_v4`, from `cowley2023_sessions.csv`, a table made of its repository at commit f4552ad.

Units and images are those of the files `responses_repeat_averaged/responses_<session>.npy`; the repository's readme.txt
has other numbers of images for 190924 to 190929 (900, the files 1200: of 300 images the kind is not said), 201016 and
201017 (900, the files 600; of 201017 it lists kinds of 900). Of repeats it has one typical number a session. Here are
the fewest and the most of an image, by the averages: the smallest number by which the averages of all units become
whole counts. There is such a number, at most 33, for every image of every session, and it is right for the two sessions
whose raw responses could be read (201016 and 210325). SHA-256 and size are of the files that could be read.
"""

import csv
from dataclasses import dataclass
from pathlib import Path

from neurovar_datasets._fetching.source import File

COMMIT = "https://raw.githubusercontent.com/cowleygroup/V4_compact_models/f4552ad9d34a466ebc66658f72a08a8e5038f1cf"


@dataclass(frozen=True)
class Session:
    """One recording session: the animal, how much was recorded, and its files; `repeats` are the fewest and the most.

    `image_kinds` are the words of the repository's readme.txt; `images` is None where they are not published.
    """

    subject: str
    n_units: int
    n_stimuli: int
    repeats: tuple[int, int]
    image_kinds: str
    responses: File
    images: File | None


def _sessions() -> dict[str, Session]:
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return {
        row["session"]: Session(
            subject=row["subject"],
            n_units=int(row["n_units"]),
            n_stimuli=int(row["n_stimuli"]),
            repeats=(int(row["fewest_repeats"]), int(row["most_repeats"])),
            image_kinds=row["image_kinds"],
            responses=_file(row, "responses", f"responses_raw/responses_{row['session']}.npy"),
            images=_file(row, "images", f"images/images_{row['session']}.zip") if row["images_git"] else None,
        )
        for row in rows
    }


def _file(row: dict[str, str], kind: str, path: str) -> File:
    """Known by its SHA-256 and size, or else by its id in git, from which no size follows."""
    sha256, git, size = (row[f"{kind}_{column}"] for column in ("sha256", "git", "size"))
    return File(
        path=f"cowley2023_v4/{Path(path).name}",
        url=f"{COMMIT}/data_V4_responses/{path}",
        hash=f"sha256:{sha256}" if sha256 else f"git:{git}",
        size=int(size) if size else None,
    )


SESSIONS = _sessions()
