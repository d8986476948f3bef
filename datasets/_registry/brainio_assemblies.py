"""The assemblies of Brain-Score that keep their repetitions, as they are registered and packaged there.

From brain-score/vision at c642dbe (`__init__.py`, `test.py` and `data_packaging` in brainscore_vision/data/*):
identifiers, version ids and SHA-1 are those with which Brain-Score itself loads them, counts those that its tests
assert or its packaging scripts state. No licence is given there for any of them.

Not here, as they do not serve variability: Kar2019 (object solution times, no responses), Li2026 and Papale2025_train
(averages or one repetition), Coggan2024_fMRI (similarities), Marques2020 (properties of neurons). Nor are Seibert2019
and Igustibagus2024 (trials lack some units), Sanghavi2020 (overlapping time bins, repetitions not stated),
Kuzovkin2018, David2004 and Bracci2019 (repetitions not stated), LAION-fMRI, and Gifford2022 (EEG).
"""

from dataclasses import dataclass

from neurovar_datasets._fetching.source import File

_STORE = "https://brainscore-storage.s3.amazonaws.com"
_BY_HAND = "it is private in Brain-Score: ask its team (brain-score.org) for access, and load it once there"


@dataclass(frozen=True)
class Assembly:
    """One assembly: its file, where it comes from, and what was recorded.

    `apart` says why its units' noise cannot be correlated; empty where the units of one subject were recorded together.
    """

    file: File
    title: str
    citation: str
    doi: str
    units: str
    area: str
    species: str
    method: str
    n_units: str
    n_stimuli: str
    n_repeats: str
    apart: str = ""
    note: str = ""


def _file(folder: str, identifier: str, version: str, sha1: str, *, private: bool = False) -> File:
    name = f"assy_{identifier.replace('.', '_')}.nc"
    url = f"{_STORE}/{folder}/{name}?versionId={version}"
    return File(path=f"brainio/{name}", url=url, hash=f"sha1:{sha1}", by_hand=_BY_HAND if private else "")


def _old(identifier: str, sha1: str, version: str = "null", *, private: bool = False) -> File:
    return _file("brainio-brainscore", identifier, version, sha1, private=private)


def _benchmark(folder: str, identifier: str, version: str, sha1: str, *, private: bool = False) -> File:
    return _file(f"brainscore-vision/benchmarks/{folder}", identifier, version, sha1, private=private)


_MACAQUE = "macaque"
_SITES_APART = "the assembly does not say which sites were recorded together"

_MAJAJ = {
    "title": "Simple learned weighted sums of inferior temporal neuronal firing rates accurately predict human core "
    "object recognition performance",
    "citation": "Majaj NJ, Hong H, Solomon EA, DiCarlo JJ (2015). Simple learned weighted sums of inferior temporal "
    "neuronal firing rates accurately predict human core object recognition performance. J Neurosci 35:13402.",
    "doi": "10.1523/JNEUROSCI.5181-14.2015",
    "units": "normalised firing rate",
    "area": "V4 and IT",
    "species": _MACAQUE,
    "method": "Utah arrays",
    "n_units": "256 (88 V4, 168 IT)",
    "apart": _SITES_APART,
}
_MAJAJ_PUBLIC = {"n_stimuli": "3200", "n_repeats": "46 on average (148,480 presentations)"}
_MAJAJ_PRIVATE = {"n_stimuli": "2560", "n_repeats": "not stated"}

_FREEMAN = {
    "title": "A functional and perceptual signature of the second visual area in primates",
    "citation": "Freeman J, Ziemba CM, Heeger DJ, Simoncelli EP, Movshon JA (2013). A functional and perceptual "
    "signature of the second visual area in primates. Nat Neurosci 16:974.",
    "doi": "10.1038/nn.3402",
    "units": "spike count",
    "area": "V1 and V2",
    "species": _MACAQUE,
    "method": "single electrodes, anaesthetised",
    "n_units": "205 (102 V1, 103 V2)",
    "n_repeats": "20",
    "apart": "the neurons were recorded one at a time",
    "note": "in bins of 1 ms, 0 to 300 ms",
}
_ALLEN = {
    "title": "A massive 7T fMRI dataset to bridge cognitive neuroscience and artificial intelligence",
    "citation": "Allen EJ, St-Yves G, Wu Y, et al. (2022). A massive 7T fMRI dataset to bridge cognitive neuroscience "
    "and artificial intelligence. Nat Neurosci 25:116.",
    "doi": "10.1038/s41593-021-00962-x",
    "units": "z-scored beta",
    "area": "V1, V2, V4 and IT",
    "species": "human",
    "method": "7T fMRI",
    "n_repeats": "3",
}
_KAR = {
    "title": "Evidence that recurrent circuits are critical to the ventral stream's execution of core object "
    "recognition behavior",
    "citation": "Kar K, Kubilius J, Schmidt K, Issa EB, DiCarlo JJ (2019). Evidence that recurrent circuits are "
    "critical to the ventral stream's execution of core object recognition behavior. Nat Neurosci 22:974.",
    "doi": "10.1038/s41593-019-0392-5",
}
_RUST = {
    "title": "Balanced increases in selectivity and tolerance produce constant sparseness along the ventral visual "
    "stream",
    "citation": "Rust NC, DiCarlo JJ (2012). Balanced increases in selectivity and tolerance produce constant "
    "sparseness along the ventral visual stream. J Neurosci 32:10170.",
    "doi": "10.1523/JNEUROSCI.6125-11.2012",
    "units": "not stated",
    "area": "V4 and IT",
    "species": _MACAQUE,
    "n_stimuli": "300",
}

ASSEMBLIES = {
    "MajajHong2015.public": Assembly(
        file=_old("dicarlo.MajajHong2015.public", "13d28ca0ce88ee550b54db3004374ae19096e9b9"),
        **_MAJAJ,
        **_MAJAJ_PUBLIC,
    ),
    "MajajHong2015.private": Assembly(
        file=_old("dicarlo.MajajHong2015.private", "7a40d16148d6f82939155f0bd976d310857fb156", private=True),
        **_MAJAJ,
        **_MAJAJ_PRIVATE,
    ),
    "MajajHong2015.temporal.public": Assembly(
        file=_old("dicarlo.MajajHong2015.temporal.public", "093ac35b3e8464c676d24cf38238415d4d6a9448"),
        note="several time bins: it needs much memory",
        **_MAJAJ,
        **_MAJAJ_PUBLIC,
    ),
    "MajajHong2015.temporal.private": Assembly(
        file=_old("dicarlo.MajajHong2015.temporal.private", "804ea9e7c08ae9ab7a7d705c9c7e68582750e2ea", private=True),
        note="several time bins: it needs much memory",
        **_MAJAJ,
        **_MAJAJ_PRIVATE,
    ),
    "FreemanZiemba2013.public": Assembly(
        file=_old(
            "movshon.FreemanZiemba2013.public",
            "761c08f796db4e342555cdb60eef23a4f19ead43",
            "W2vx7jdh9utZdVumHHarXa4L1zOrA8Fd",
        ),
        n_stimuli="135",
        **_FREEMAN,
    ),
    "FreemanZiemba2013.private": Assembly(
        file=_old(
            "movshon.FreemanZiemba2013.private",
            "63f636fa2e2b51b47a676768a69b06ce95efdd8f",
            "wx5LB7Nq42SV74RQ8Cw6EtyabywsnSyG",
            private=True,
        ),
        n_stimuli="315",
        **_FREEMAN,
    ),
    "Papale2025_test": Assembly(
        file=_benchmark(
            "Papale2025",
            "THINGS_TVSD_test_Assembly",
            "XK0CVCAzfHNOrKgmNrLqFfwvs_gSWKb.",
            "685025f67e90006e775ac153e8e0007e35b62bbc",
        ),
        title="An extensive dataset of spiking activity to reveal the syntax of the ventral stream",
        citation="Papale P, Wang F, Self MW, Roelfsema PR (2025). An extensive dataset of spiking activity to reveal "
        "the syntax of the ventral stream. Neuron 113.",
        doi="10.1016/j.neuron.2024.12.003",
        units="normalised multi-unit activity",
        area="V1, V4 and IT",
        species=_MACAQUE,
        method="Utah arrays",
        n_units="2048 (1024 in each of two animals)",
        n_stimuli="100",
        n_repeats="30",
        note="the window 70 to 170 ms is Brain-Score's label: the authors averaged over a window of each area's own",
    ),
    "Hebart2023_fmri_test": Assembly(
        file=_benchmark(
            "Hebart2023_fmri",
            "THINGS_fMRI_test_Assembly",
            "LksBmANKvDyfqkl0U5Dy33Q4VAHOO5g3",
            "948bd3104fc8f0f0a15180f030666c74d69de2b3",
        ),
        title="THINGS-data, a multimodal collection of large-scale datasets for investigating object representations "
        "in human brain and behavior",
        citation="Hebart MN, Contier O, Teichmann L, et al. (2023). THINGS-data, a multimodal collection of "
        "large-scale datasets for investigating object representations in human brain and behavior. eLife 12:e82580.",
        doi="10.7554/eLife.82580",
        units="beta",
        area="V1, V2, V4 and IT",
        species="human",
        method="3T fMRI",
        n_units="18394 voxels of three subjects",
        n_stimuli="100",
        n_repeats="12",
    ),
    "Allen2022_fmri_test": Assembly(
        file=_benchmark(
            "Allen2022/Allen2022_fmri",
            "Allen2022_fMRI_test_Assembly",
            "27mm9BVBp_nyq6zlrywUtcR_TxePQCid",
            "3203ab79d48fab9b6e31f9d2a6301a11c512a0e9",
            private=True,
        ),
        n_units="84564 voxels of eight subjects",
        n_stimuli="103",
        **_ALLEN,
    ),
    "Allen2022_fmri_4subj_test": Assembly(
        file=_benchmark(
            "Allen2022/Allen2022_fmri",
            "Allen2022_fMRI_4subj_test_Assembly",
            "opZA1Oyvx9sQWTCfQdC9djv7Be0p8WzJ",
            "8b1a5e6378eff6a7499f6cb1ab0e3806d567bb4e",
            private=True,
        ),
        n_units="40314 voxels of four subjects",
        n_stimuli="200",
        **_ALLEN,
    ),
    "Allen2022_fmri_surface_test": Assembly(
        file=_benchmark(
            "Allen2022/Allen2022_fmri_surface",
            "Allen2022_fMRI_surface_test_Assembly",
            "XwzoT6lBFvUnn9l6WnD9GPPw_PafqAQ9",
            "8b4fcc132b5c1e81bb61e38ca51875a98619066b",
            private=True,
        ),
        n_units="221168 vertices of eight subjects",
        n_stimuli="103",
        **_ALLEN,
    ),
    "Allen2022_fmri_surface_4subj_test": Assembly(
        file=_benchmark(
            "Allen2022/Allen2022_fmri_surface",
            "Allen2022_fMRI_surface_4subj_test_Assembly",
            "kzuIe9w5y7AfuajgzUD1SYosbBs0tC69",
            "1f8524de28ad6cd3a89feddcfb82d9ab67dd9656",
            private=True,
        ),
        n_units="110584 vertices of four subjects",
        n_stimuli="200",
        **_ALLEN,
    ),
    "Cadena2017": Assembly(
        file=_old("tolias.Cadena2017", "69bcaaa9370dceb0027beaa06235ef418c3d7063", private=True),
        title="Deep convolutional models improve predictions of macaque V1 responses to natural images",
        citation="Cadena SA, Denfield GH, Walker EY, Gatys LA, Tolias AS, Bethge M, Ecker AS (2017). Deep "
        "convolutional models improve predictions of macaque V1 responses to natural images. bioRxiv 201764.",
        doi="10.1101/201764",
        units="spike count",
        area="V1",
        species=_MACAQUE,
        method="laminar probes",
        n_units="166",
        n_stimuli="7250",
        n_repeats="4 (29,000 presentations; about 43 % have a value for every neuron)",
        apart="many stimuli were shown to a part of the neurons only: they come from several sessions",
    ),
    "Kar2018hvm": Assembly(
        file=_old("dicarlo.Kar2018hvm", "96ccacc76c5fa30ee68bdc8736d1d43ace93f3e7", private=True),
        units="firing rate",
        area="IT",
        species=_MACAQUE,
        method="Utah arrays",
        n_units="the reliable ones of 576 sites",
        n_stimuli="640",
        n_repeats="63",
        apart=_SITES_APART,
        **_KAR,
    ),
    "Rust2012.single": Assembly(
        file=_old("dicarlo.Rust2012.single", "4ef420e70fbd0de3745df5be7c83dfc0a8f2e528", private=True),
        method="single electrodes",
        n_units="285",
        n_repeats="5",
        apart="single units, which were not recorded together",
        **_RUST,
    ),
    "Rust2012.array": Assembly(
        file=_old("dicarlo.Rust2012.array", "6709b641751370acfccd9567e3d75b71865a71ab", private=True),
        method="arrays",
        n_units="296",
        n_repeats="179 (53,700 presentations)",
        apart=_SITES_APART,
        note="six time bins",
        **_RUST,
    ),
    "Rajalingham2020": Assembly(
        file=_old("dicarlo.Rajalingham2020", "ab95ae6c9907438f87b9b13b238244049f588680", private=True),
        title="The inferior temporal cortex is a potential cortical precursor of orthographic processing in untrained "
        "monkeys",
        citation="Rajalingham R, Kar K, Sanghavi S, Dehaene S, DiCarlo JJ (2020). The inferior temporal cortex is a "
        "potential cortical precursor of orthographic processing in untrained monkeys. Nat Commun 11:3886.",
        doi="10.1038/s41467-020-17714-3",
        units="not stated",
        area="IT",
        species=_MACAQUE,
        method="Utah arrays",
        n_units="not stated",
        n_stimuli="616",
        n_repeats="33, of which at least 27 of every neuron",
        apart=_SITES_APART,
    ),
    "BashivanKar2019.naturalistic": Assembly(
        file=_old("dicarlo.BashivanKar2019.naturalistic", "1ec2f32ef800f0c6e15879d883be1d55b51b8b67", private=True),
        title="Neural population control via deep image synthesis",
        citation="Bashivan P, Kar K, DiCarlo JJ (2019). Neural population control via deep image synthesis. "
        "Science 364:eaav9436.",
        doi="10.1126/science.aav9436",
        units="not stated",
        area="V4",
        species=_MACAQUE,
        method="Utah arrays",
        n_units="233",
        n_stimuli="not stated",
        n_repeats="not stated (24,320 presentations, not all with a value for every neuron)",
        apart="neurons of several animals and sessions",
    ),
}
