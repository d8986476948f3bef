"""One HTML file that stands alone, lets nothing hostile through, and is written whole or not at all."""

import base64
import os
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from neurovar import plotting
from neurovar.cli import report

HOSTILE = "<script>alert('&')</script>"


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.text.setdefault(self.open[-1], []).append(data.strip())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def drawn() -> Figure:
    drawing, axes = plotting.figure(1, 2)
    for ax in axes[0]:
        ax.set(xlabel="rank n", ylabel="variance")
    drawing.colorbar(axes[0, 0].imshow([[0.0, 1.0]]), ax=axes[0, 0], label="correlation")
    return drawing


@pytest.fixture
def figure() -> Figure:
    return drawn()


def write(path: Path, *sections: report.Section, **options: Any) -> Page:
    assert report.write(path, title="Results", sections=sections, **options) == path
    return Page(path)


def test_everything_is_in_one_file_that_asks_for_no_other(tmp_path: Path, figure: Figure) -> None:
    table = pd.DataFrame({"a": [1]})
    page = write(tmp_path / "index.html", report.Section("One", "Text.", figure, table), warnings=["Careful"])
    assert [item.name for item in tmp_path.iterdir()] == ["index.html"]
    sources = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href")]
    assert sources
    assert all(source and source.startswith("data:") for source in sources)
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in str(page.all("meta"))
    assert page.open == []


def test_a_figure_is_embedded_and_described(tmp_path: Path, figure: Figure) -> None:
    page = write(tmp_path / "index.html", report.Section("Spectra", "", figure))
    (image,) = page.all("img")
    assert image["alt"] == "Spectra. variance against rank n; correlation"
    data = base64.b64decode(str(image["src"]).removeprefix("data:image/png;base64,"))
    assert data.startswith(b"\x89PNG")
    width = int.from_bytes(data[16:20], "big")
    assert width == 3.5 * 200
    assert image["style"] == "--width: 420px"


def test_the_same_results_give_the_same_page(tmp_path: Path) -> None:
    for name in ("a.html", "b.html"):
        write(tmp_path / name, report.Section("One", "Text.", drawn()))
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_text_becomes_paragraphs(tmp_path: Path) -> None:
    page = write(tmp_path / "index.html", report.Section("One", "First\nline.\n\n\nSecond."))
    assert page.text["p"] == ["First\nline.", "Second."]
    assert page.text["h1"] == page.text["title"] == ["Results"]
    assert page.text["h2"] == ["One"]


def test_warnings_stand_under_the_heading(tmp_path: Path) -> None:
    page = write(tmp_path / "index.html", report.Section("One", "Text."), warnings=["SIMULATED recording"])
    tags = [tag for tag, _ in page.tags]
    assert tags.index("h1") < tags.index("p") < tags.index("main")
    assert page.text["p"][0] == "SIMULATED recording"
    assert page.all("p")[0] == {"class": "warning", "role": "note"}


def test_a_table_keeps_its_numbers_and_heads_its_rows(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {"V4": [0.0301234, np.nan], "n": [50, 640], "why": ["", None], "real": [True, False]},
        index=pd.Index(["noise", "signal"], name="statistic"),
    )
    page = write(tmp_path / "index.html", report.Section("One", "Text.", table=table))
    assert page.text["th"] == ["statistic", "V4", "n", "why", "real", "noise", "signal"]
    assert page.text["td"] == ["0.03012", "50", "True", "n/a", "640", "n/a", "False"]
    scopes = [attrs["scope"] for attrs in page.all("th")]
    assert scopes == ["col"] * 5 + ["row"] * 2
    assert [attrs.get("class") for attrs in page.all("td")[:4]] == ["number", "number", None, None]


def test_a_table_without_an_index_starts_at_its_first_column(tmp_path: Path) -> None:
    page = write(tmp_path / "index.html", report.Section("One", "", table=pd.DataFrame({"a": ["x"], "b": [2]})))
    assert page.text["th"] == ["a", "b", "x"]
    assert page.text["td"] == ["2"]


def test_a_table_may_have_nameless_levels(tmp_path: Path) -> None:
    table = pd.DataFrame({"b": [2]}, index=pd.MultiIndex.from_tuples([("pgd", 0.1)]))
    page = write(tmp_path / "index.html", report.Section("One", "", table=table))
    assert page.text["th"] == ["b", "pgd"]
    assert page.text["td"] == ["0.1", "2"]


def test_provenance_ends_the_page(tmp_path: Path) -> None:
    provenance = {"commit": "abc", "versions": {"numpy": "2.4"}}
    page = write(tmp_path / "index.html", report.Section("One", ""), provenance=provenance)
    assert page.text["h2"] == ["One", "Provenance"]
    assert page.text["th"] == ["commit", "versions"]
    assert page.text["td"] == ["abc", "{'numpy': '2.4'}"]


def test_hostile_text_stays_text(tmp_path: Path, figure: Figure) -> None:
    table = pd.DataFrame({HOSTILE: [HOSTILE]}, index=pd.Index([HOSTILE], name=HOSTILE))
    path = tmp_path / "index.html"
    report.write(
        path,
        title=HOSTILE,
        sections=[report.Section('"' + HOSTILE, HOSTILE, figure, table)],
        warnings=[HOSTILE],
        provenance={HOSTILE: HOSTILE},
    )
    page = Page(path)
    assert not page.all("script")
    assert str(page.all("img")[0]["alt"]).startswith('"<script>')
    assert "&lt;script&gt;alert(&#39;&amp;&#39;)" in path.read_text(encoding="utf-8")


def test_the_page_is_accessible(tmp_path: Path, figure: Figure) -> None:
    page = write(tmp_path / "index.html", report.Section("One", "", figure, pd.DataFrame({"a": [1]})))
    assert page.all("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.all("meta")
    assert all(attrs.get("alt") for attrs in page.all("img"))
    assert all(attrs.get("scope") for attrs in page.all("th"))
    scrolled = [attrs for attrs in page.all("div") if "scroll" in str(attrs["class"])]
    assert [attrs["aria-label"] for attrs in scrolled] == ["Figure: One", "Table: One"]
    assert {attrs["tabindex"] for attrs in scrolled} == {"0"}


def test_missing_folders_are_made(tmp_path: Path) -> None:
    write(tmp_path / "new" / "deep" / "index.html", report.Section("One", ""))


def test_an_odd_file_name_does_not_cost_the_report(tmp_path: Path) -> None:
    page = write(tmp_path / "index.html", report.Section("One", ""), provenance={"file": "images\udcff.zip"})
    assert page.text["td"] == ["images?.zip"]


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match=r"folder that can be written, got .*file/index\.html .*choose another"):
        report.write(tmp_path / "file" / "index.html", title="Results", sections=[])
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_in_place_of_the_page_is_refused(tmp_path: Path) -> None:
    (tmp_path / "index.html").mkdir()
    with pytest.raises(ValueError, match=r"got .*index\.html \(.*choose another output path"):
        report.write(tmp_path / "index.html", title="Results", sections=[])
    assert [item.name for item in tmp_path.iterdir()] == ["index.html"]


def test_an_unwritable_folder_leaves_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "index.html"
    path.write_text("old")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(ValueError, match=r"index\.html \(Permission denied\): choose another output path"):
        report.write(path, title="Results", sections=[])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_figure_that_cannot_be_drawn_leaves_the_old_page(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text("old")
    broken = Figure()
    broken.supxlabel(r"$\nosuchcommand$")
    with pytest.raises(ValueError, match="nosuchcommand"):
        report.write(path, title="Results", sections=[report.Section("One", "", broken)])
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
