"""How heavy a page is, and what of."""

from __future__ import annotations

import re
from pathlib import Path

from bench.errors import UserError

LIMIT = 10_000_000
"""Bytes that a page should stay below: what can be mailed, and opens at once on a phone."""
NAMED = 5
"""Parts that a warning names."""
VIEW = re.compile(r'<section class="view[^"]*" id="([^"]+)"')
KINDS = {
    "pictures": re.compile(r'"data:image/[^"]*"'),
    "drawings": re.compile(r"<svg .*?</svg>", re.DOTALL),
    "tables": re.compile(r"<table .*?</table>", re.DOTALL),
    "samples and sources": re.compile(r'<script type="application/json".*?</script>', re.DOTALL),
}
"""What a page is made of, and how it is found."""


def parts(text: str) -> dict[str, dict[str, int]]:
    """Address of every part of a page -> kind of content -> letters, largest part first; ``rest`` is all that is of no kind."""
    begins = [(match.start(), match[1]) for match in VIEW.finditer(text)]
    ends = [start for start, _ in begins[1:]] + [len(text)]
    found = {}
    for (start, name), end in zip(begins, ends, strict=True):
        part = text[start:end]
        sizes = {kind: sum(len(match[0]) for match in pattern.finditer(part)) for kind, pattern in KINDS.items()}
        found[name] = sizes | {"rest": len(part) - sum(sizes.values())}
    return dict(sorted(found.items(), key=lambda item: -sum(item[1].values())))


def warning(page: Path, limit: int = LIMIT) -> str | None:
    """One line that names the largest parts of a page with more than `limit` bytes; None below.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        size = page.stat().st_size
        text = page.read_text(encoding="utf-8") if size > limit else ""
    except OSError as error:
        raise UserError(f"{page}: cannot be read ({error.strerror}); write it with `isochron report`") from None
    if not text:
        return None
    largest = [
        f"{name} {sum(sizes.values()) / 1e6:.2f} ({', '.join(_shares(sizes))})"
        for name, sizes in list(parts(text).items())[:NAMED]
    ]
    return (
        f"{page}: has {size / 1e6:.1f} MB, more than {limit / 1e6:g}; largest: {'; '.join(largest)}; name fewer folders"
    )


def _shares(sizes: dict[str, int]) -> list[str]:
    """The two largest kinds of a part."""
    ordered = sorted(sizes.items(), key=lambda item: -item[1])[:2]
    return [f"{kind} {size / 1e6:.2f}" for kind, size in ordered]
