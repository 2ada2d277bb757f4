"""A command of `isochron` taken apart, so that options can be added and equal calls be found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

ALONE = ("--quiet", "-q", "--json", "--replace", "--weights", "--help", "--version")
"""Options without a value."""


@dataclass(frozen=True)
class Call:
    """What `isochron` is called with: of an option that is given twice the last one counts, as in the command itself."""

    name: str
    given: tuple[str, ...]
    """Arguments without a name."""
    options: tuple[tuple[str, str], ...]
    sets: tuple[tuple[str, str], ...]
    """Of ``--set``: key and value."""

    @classmethod
    def of(cls, words: Sequence[str]) -> Call:
        """The call that `words` (behind `isochron`) make."""
        given: list[str] = []
        options: dict[str, str] = {}
        sets: dict[str, str] = {}
        rest = iter(words[1:])
        for word in rest:
            if word in ALONE:
                options[word] = ""
            elif word == "--set":
                key, _, value = next(rest).partition("=")
                sets[key] = value
            elif word.startswith("--"):
                options[word] = next(rest)
            else:
                given.append(word)
        return cls(words[0], tuple(given), tuple(sorted(options.items())), tuple(sorted(sets.items())))

    def option(self, name: str) -> str | None:
        return dict(self.options).get(name)

    def added(self, options: Mapping[str, str], sets: Mapping[str, object] | None = None) -> Call:
        """The same call with more options behind those that it has."""
        more = {key: str(value) for key, value in (sets or {}).items()}
        return replace(
            self,
            options=tuple(sorted({**dict(self.options), **options}.items())),
            sets=tuple(sorted({**dict(self.sets), **more}.items())),
        )

    @property
    def words(self) -> list[str]:
        options = [word for key, value in self.options for word in ((key, value) if value else (key,))]
        return [
            self.name,
            *self.given,
            *options,
            *(word for key, value in self.sets for word in ("--set", f"{key}={value}")),
        ]

    def __str__(self) -> str:
        return " ".join(self.words)
