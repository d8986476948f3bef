"""One self-contained HTML page of results: text, figures and tables in one file that asks the network for nothing.

Every text is escaped, figures travel inside the page, and the page appears whole or not at all.
"""

import base64
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 200
_PIXELS_PER_INCH = 120  # on screen: the 8 pt type of a figure reads like the small type of the page


@dataclass(frozen=True, eq=False)
class Section:
    """One heading of a report. Blank lines in `text` separate paragraphs; the table's index heads its rows.

    >>> Section("Accuracy", "On clean images.").figure is None
    True
    """

    title: str
    text: str
    figure: "Figure | None" = None
    table: pd.DataFrame | None = None


def write(
    path: str | os.PathLike[str],
    *,
    title: str,
    sections: Iterable[Section],
    warnings: Sequence[str] = (),
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write the report to `path`, replacing what is there only once the page is complete.

    Args:
        path: the HTML file; folders that are missing are made.
        title: heading of the page.
        sections: in order.
        warnings: what the reader must know before any number, set under the heading.
        provenance: commit, versions, hashes, …, as a table at the end.

    Returns:
        The path written.

    Raises:
        ValueError: `path` cannot be written.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     page = write(Path(folder, "index.html"), title="R < 1", sections=[Section("A", "Text.")])
    ...     "<h1>R &lt; 1</h1>" in page.read_text(encoding="utf-8")
    True
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("neurovar.cli", package_path=""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    page = environment.get_template("report.html").render(
        title=title,
        sections=[_rendered(section) for section in sections],
        warnings=warnings,
        provenance=provenance,
    )
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, page)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"expected a report file in a folder that can be written, got {path} ({reason}): "
            "choose another output path or change its permissions"
        ) from error
    return path


def _replace(path: Path, page: str) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        # "replace": an odd file name in the provenance must not cost the whole report
        partial.write_text(page, encoding="utf-8", errors="replace")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _rendered(section: Section) -> dict[str, Any]:
    return {
        "title": section.title,
        "paragraphs": [part.strip() for part in section.text.split("\n\n") if part.strip()],
        "image": None if section.figure is None else _image(section.figure, section.title),
        "table": None if section.table is None else _table(section.table),
    }


def _image(figure: "Figure", title: str) -> dict[str, Any]:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, facecolor="white", metadata={"Software": None})
    panels = [f"{ax.get_ylabel()} against {ax.get_xlabel()}" for ax in figure.axes if ax.get_xlabel()]
    others = [ax.get_ylabel() for ax in figure.axes if ax.get_ylabel() and not ax.get_xlabel()]
    return {
        "data": base64.b64encode(buffer.getvalue()).decode("ascii"),
        "width": round(figure.get_figwidth() * _PIXELS_PER_INCH),
        "alt": f"{title}. " + "; ".join(dict.fromkeys([*panels, *others])),
    }


def _table(frame: pd.DataFrame) -> dict[str, Any]:
    if not isinstance(frame.index, pd.RangeIndex):
        names = [name or "" for name in frame.index.names]
        frame = frame.reset_index(names=names, allow_duplicates=True)
    columns = [
        {"name": str(name), "numeric": is_numeric_dtype(kind) and not is_bool_dtype(kind)}
        for name, kind in zip(frame.columns, frame.dtypes)
    ]
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    return {"columns": columns, "rows": rows}


def _cell(value: Any) -> str:
    if pd.api.types.is_scalar(value) and pd.isna(value):
        return "n/a"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
