"""The commands that the pages show, as a reader would type them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
PROGRAMS = ("isochron", "make", "python", "bash", "pip", "pytest", "apt-get", "tar", "git")
SHELL = ("", "sh", "bash", "console")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Shown:
    """A command on a page."""

    page: str
    words: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.words)


def command(line: str) -> tuple[str, ...]:
    """The words of a line that calls one of `PROGRAMS`, without its comment; none of any other line."""
    first = line.split(maxsplit=1)[:1]
    if not first or Path(first[0]).name not in PROGRAMS:
        return ()
    words = shlex.split(line, comments=True)
    return (Path(words[0]).name, *words[1:])


def fenced(page: Path) -> list[list[str]]:
    """The lines of every block that may hold commands; a line that goes on is one line."""
    blocks = FENCED.findall(page.read_text(encoding="utf-8"))
    joined = (re.sub(r"\\\n\s*", " ", text) for language, text in blocks if language in SHELL)
    return [[line for line in text.splitlines() if line.strip()] for text in joined]


def inline(page: Path) -> list[str]:
    """What stands between single backticks in the prose."""
    prose = FENCED.sub("", page.read_text(encoding="utf-8"))
    return [" ".join(text.split()) for text in re.findall(r"`([^`]+)`", prose)]


def shown() -> list[Shown]:
    """All commands of all pages, each once; of the prose those of `isochron` with arguments alone."""
    found: dict[tuple[str, ...], Shown] = {}
    for page in PAGES:
        lines = [line for block in fenced(page) for line in block]
        bare = [words for words in map(command, inline(page)) if words and not is_name(words)]
        for words in (*filter(None, map(command, lines)), *bare):
            found.setdefault(words, Shown(page.relative_to(ROOT).as_posix(), words))
    return list(found.values())


def is_name(words: tuple[str, ...]) -> bool:
    """Whether the prose only names `isochron`, or one of its commands."""
    return words[0] == "isochron" and (len(words) == 1 or (len(words) == 2 and not words[1].startswith("-")))


@cache
def made(words: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """The commands that a `make` command would run, but for those that only prepare; the command itself of any other."""
    if words[0] != "make":
        return (normal(words),)
    call = ["make", "-n", "-o", ".venv/.installed", *words[1:]]
    done = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return tuple(normal(found) for found in map(command, lines) if found)


def normal(words: tuple[str, ...]) -> tuple[str, ...]:
    """`python -m bench` is `isochron`, `python -m pytest` is `pytest`; a file that is named after the time is left out."""
    by_module = {"bench": "isochron", "pytest": "pytest"}
    if words[:2] == ("python", "-m") and words[2:3] and words[2] in by_module:
        words = (by_module[words[2]], *words[3:])
    return tuple(word for word in words if not word.startswith("--benchmark-json"))


HAS_MAKE = shutil.which("make") is not None
