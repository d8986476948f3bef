"""The files of Allen's Visual Coding – Neuropixels sessions as DANDI has them, from `allen_sessions.csv`.

The table is from the metadata of dandisets 000021 and 000022, of 2023-06-20 (github.com/dandisets/000021 at e30a06c,
000022 at 191abd9): dandiset, session, subject, size in bytes, the blob in DANDI's bucket, and its SHA-256.
"""

import csv
from pathlib import Path

from neurovar_datasets._fetching.source import File

_BLOBS = "https://dandiarchive.s3.amazonaws.com/blobs"


def _files() -> dict[str, tuple[File, ...]]:
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as stream:
        return {
            row["session"]: (
                File(
                    path=f"allen_visual_coding/sub-{row['subject']}_ses-{row['session']}.nwb",
                    # DANDI's bucket has each blob below the first and the second three characters of its name.
                    url=f"{_BLOBS}/{row['blob'][:3]}/{row['blob'][3:6]}/{row['blob']}",
                    hash=f"sha256:{row['sha256']}",
                    size=int(row["size"]),
                ),
            )
            for row in csv.DictReader(stream)
        }


FILES = _files()
