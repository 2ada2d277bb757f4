"""The report that people open: one static HTML file that holds every table, curve, ledger and picture of some result folders.

Everything is in the file, styles and script too, and its content security policy forbids it to load anything. Numbers come
from `bench.report.tables` and `bench.report.paper`; nothing is computed a second time. The same folders give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from bench import PROTOCOL, __version__
from bench.errors import UserError
from bench.report.claims import STATUSES, Verdict
from bench.report.page import beside, efficiency, scaling
from bench.report.page.comparison import ComparisonPage, gather
from bench.report.page.curves import HEIGHT, MARKS, WIDTH
from bench.report.page.provenance import FILES, shown_folder
from bench.report.page.scaling import ScalingPage
from bench.report.plots import CHARGED, UNCHARGED
from bench.store.efficiency import RECORD, open_efficiency
from bench.store.files import write_bytes
from bench.store.read import open_comparison
from bench.store.results import COMPARISON, record_of
from bench.store.scaling import RECORD as SCALING
from bench.store.scaling import open_scaling

ASSETS = Path(__file__).parent / "assets"
TALL = 16
"""Tables with more rows scroll in a box of their own."""


def find(results: Path = Path("results"), runs: Path = Path("runs")) -> list[Path]:
    """Folders that are meant when none is named: all published ones, or else all under `runs`.

    Raises:
        UserError: there is none.
    """
    for pattern in (results.glob("*/*/"), runs.glob("*/")):
        if found := sorted(path for path in pattern if record_of(path)):
            return found
    raise UserError(
        f"{results}, {runs}: hold no {COMPARISON}, {RECORD} or {SCALING}; run `make bench-time-budget` first"
    )


def write(folders: Sequence[Path], out: Path, verdicts: Sequence[Verdict] = ()) -> Path:
    """Write the report of `folders` into the file `out`, all or nothing, and return its path.

    Args:
        folders: of comparisons, of `isochron measure-efficiency` and of `isochron scaling-curve`, in the order in which they
            are to stand.
        out: the HTML file.
        verdicts: on claims; without any the report has no such part.

    Raises:
        UserError: no folder is given, one is none of them, or one is unfinished or damaged.
    """
    if not out.suffix:
        raise UserError(f"{out}: is the name of a folder; name a file, such as {out / 'report.html'}")
    write_bytes(out, render(folders, verdicts).encode())
    return out


def render(folders: Sequence[Path], verdicts: Sequence[Verdict] = ()) -> str:
    """The report as text; see `write`."""
    if not folders:
        raise UserError("folders: none is given; name result folders")
    kinds = {folder: record_of(folder) for folder in folders}
    for folder, kind in kinds.items():
        if not kind:
            raise UserError(f"{folder}: holds no {COMPARISON}, {RECORD} or {SCALING}; give a result folder")
    named = dict(zip(_unique([folder.resolve().name for folder in folders]), folders, strict=True))

    def of(kind: str) -> list[tuple[Path, str]]:
        return [(folder, name) for name, folder in named.items() if kinds[folder] == kind]

    comparisons = [gather(open_comparison(folder), name) for folder, name in of(COMPARISON)]
    measured = [efficiency.gather(open_efficiency(folder), name) for folder, name in of(RECORD)]
    scalings = [scaling.gather(open_scaling(folder), name) for folder, name in of(SCALING)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["data"] = _data
    style, script = ((ASSETS / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    counts: Counter[str] = Counter(verdict.status for verdict in verdicts)
    return environment.get_template("page.html.jinja").render(
        comparisons=comparisons,
        efficiencies=measured,
        scalings=scalings,
        beside=beside.gather([folder for folder, _ in of(COMPARISON)]) if comparisons else None,
        verdicts=sorted(verdicts, key=lambda verdict: (*STATUSES, verdict.status).index(verdict.status)),
        statuses={status: counts[status] for status in STATUSES if counts[status]},
        tall=TALL,
        kinds=FILES,
        tasks=_tasks(comparisons, scalings, verdicts),
        by_task=_by_task(comparisons),
        link=_links(named, scalings),
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        marks=MARKS,
        size=(WIDTH, HEIGHT),
        hatches={key: hatch for key, (_, _, hatch) in {**CHARGED, **UNCHARGED}.items() if hatch},
        version=__version__,
        protocol=PROTOCOL,
    )


def _links(named: Mapping[str, Path], scalings: Sequence[ScalingPage]) -> dict[str, str]:
    """What verdicts call a result folder, or a curve's part of one -> its address."""
    found = {shown_folder(folder): name for name, folder in named.items()}
    for page in scalings:
        folder = named[page.id]
        for part in open_scaling(folder).parts():
            place = part.relative_to(folder)
            found[f"{shown_folder(folder)}/{place.as_posix()}"] = f"{page.id}-{place.parts[1]}"
    return found


def _policy(style: str, script: str) -> str:
    """Content security policy: this style and this script by their sums, pictures in the file, and nothing else."""
    sums = {name: _digest(content) for name, content in (("style", style), ("script", script))}
    return (
        f"default-src 'none'; style-src 'sha256-{sums['style']}'; script-src 'sha256-{sums['script']}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _digest(content: str) -> str:
    return base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def _data(value: Any) -> Markup:
    """JSON for a ``script`` element: no text in it can end the element or begin another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


def _unique(names: Sequence[str]) -> list[str]:
    """Names that an address can hold, each once: another of the same name gets a number."""
    found: list[str] = []
    for name in names:
        plain = "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
        number, one = 1, plain
        while one in found:
            number += 1
            one = f"{plain}-{number}"
        found.append(one)
    return found


def _tasks(
    comparisons: Sequence[ComparisonPage], scalings: Sequence[ScalingPage], verdicts: Sequence[Verdict]
) -> list[str]:
    curves = {curve.task for page in scalings for curve in page.curves}
    return sorted({page.task for page in comparisons} | curves | {verdict.claim.task for verdict in verdicts})


def _by_task(comparisons: Sequence[ComparisonPage]) -> Mapping[str, list[ComparisonPage]]:
    found: dict[str, list[ComparisonPage]] = {}
    for page in comparisons:
        found.setdefault(page.task, []).append(page)
    return dict(sorted(found.items()))
