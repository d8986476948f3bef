"""The sets of stimuli of `stringer2019_v1`, its recordings and their files."""

import re
from dataclasses import dataclass

from neurovar_datasets._fetching.source import File

PAGE = "https://doi.org/10.25378/janelia.6845348"
_DOWNLOAD = "https://ndownloader.figshare.com/files/"


@dataclass(frozen=True)
class StimulusSet:
    """How many stimuli there are, the recordings, and which of them share a file of images: all, none (each), or "".

    With "" there are no published images.
    """

    n_stimuli: int
    images: str
    recordings: tuple[str, ...]


SETS = {
    "natimg2800": StimulusSet(
        n_stimuli=2800,
        images="all",
        recordings=(
            "M160825_MP027_2016-12-14",
            "M161025_MP030_2017-05-29",
            "M170604_MP031_2017-06-28",
            "M170714_MP032_2017-08-07",
            "M170714_MP032_2017-09-14",
            "M170717_MP033_2017-08-20",
            "M170717_MP034_2017-09-11",
        ),
    ),
    "natimg2800_white": StimulusSet(n_stimuli=2800, images="all", recordings=()),
    "natimg2800_8D": StimulusSet(
        n_stimuli=2800,
        images="each",
        recordings=(
            "M161025_MP030_2017-06-07",
            "M170604_MP031_2017-07-02",
            "M170714_MP032_2017-08-10",
            "M170714_MP032_2017-09-15",
            "M170717_MP033_2017-08-22",
            "M170717_MP034_2017-09-15",
        ),
    ),
    "natimg2800_4D": StimulusSet(
        n_stimuli=2800,
        images="each",
        recordings=(
            "M170714_MP032_2017-09-22",
            "M170717_MP033_2017-09-19",
            "M170717_MP033_2017-09-22",
            "M170717_MP034_2017-09-20",
        ),
    ),
    "natimg2800_small": StimulusSet(n_stimuli=2800, images="each", recordings=("M170717_MP033_2017-08-23",)),
    "ori32": StimulusSet(
        n_stimuli=32,
        images="",
        recordings=(
            "M160825_MP027_2016-12-15",
            "M170604_MP031_2017-06-26",
            "M170714_MP032_2017-08-02",
            "M170717_MP033_2017-08-17",
        ),
    ),
    "natimg32": StimulusSet(
        n_stimuli=32,
        images="",
        recordings=(
            "M150824_MP019_2016-03-23",
            "M170604_MP031_2017-06-27",
            "M170714_MP032_2017-08-01",
            "M170717_MP033_2017-08-25",
        ),
    ),
}

VERIFIED = {  # figshare's id, size and MD5, quoted from its API in doi:10.5281/zenodo.23050586
    "natimg2800_M170714_MP032_2017-09-14": (12462698, 244_220_197, "597145257e2571213d51bcbbcae263fa"),
    "images_natimg2800_8D_M161025_MP030_2017-06-07": (12462530, 4_798_692, "ec3b8ea7fa267a92fbe55ccacd0c6399"),
    "images_natimg2800_8D_M170604_MP031_2017-07-02": (12462533, 3_777_355, "ca38dc90580959488b2e873dad61683f"),
    "images_natimg2800_8D_M170714_MP032_2017-08-10": (12462539, 3_385_679, "558ebb6d64cdfbde02e7ece71d5e0a97"),
    "images_natimg2800_8D_M170714_MP032_2017-09-15": (12462536, 6_529_718, "8647c41671a084a746e3d7b76a9658e6"),
    "images_natimg2800_8D_M170717_MP033_2017-08-22": (12462542, 3_692_590, "091aa99f53d5933b5e56cdd466a46502"),
    "images_natimg2800_8D_M170717_MP034_2017-09-15": (12462545, 6_579_080, "6a987d1701b31094842fdbc7f11e2a5e"),
    "images_natimg2800_4D_M170714_MP032_2017-09-22": (12462758, 3_927_306, "d8c37e4428a8b80287da1c363ef5e41c"),
    "images_natimg2800_4D_M170717_MP033_2017-09-19": (12462761, 2_374_685, "305a6264eadc808c5361fd199bc8efde"),
    "images_natimg2800_4D_M170717_MP033_2017-09-22": (12462524, 4_661_615, "cc46d398c8edc5959cfbbb9ecbd75084"),
    "images_natimg2800_4D_M170717_MP034_2017-09-20": (12462527, 3_934_603, "db5919a8db59a222057661a4d66a1c3e"),
}

_NAME = re.compile(rf"({'|'.join(SETS)})_((M\d{{6}}_MP\d{{3}})_\d{{4}}-\d{{2}}-\d{{2}})")


@dataclass(frozen=True)
class Session:
    """One recording: its name, set of stimuli, mouse, and the files of its responses and, where published, images."""

    name: str
    stimuli: StimulusSet
    subject: str
    files: tuple[File, ...]


def session(name: str) -> Session:
    """The recording of that name, whether it is listed above or not."""
    match = _NAME.fullmatch(str(name))
    if not match:
        raise ValueError(f"expected a session such as {NAMES[0]!r}, got {name!r}")
    stimuli, recording, subject = match.groups()
    shown = {"all": "all", "each": recording}.get(SETS[stimuli].images)
    files = [name, f"images_{stimuli}_{shown}"] if shown else [name]
    return Session(name, SETS[stimuli], subject, tuple(map(_file, files)))


def _file(name: str) -> File:
    path = f"stringer2019_v1/{name}.mat"
    if name not in VERIFIED:
        return File(path, PAGE, by_hand=f"download {name}.mat from figshare")
    number, size, md5 = VERIFIED[name]
    return File(path, f"{_DOWNLOAD}{number}", f"md5:{md5}", size)


NAMES = tuple(f"{name}_{recording}" for name, stimuli in SETS.items() for recording in stimuli.recordings)
