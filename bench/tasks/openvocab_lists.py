"""Lists of classes that a picture is asked about: drawn for training, whole for evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bench.data.draws import Salt, stream
from bench.data.labelled import VOID
from bench.data.tokenizers import Tokenizer, open_tokenizer

if TYPE_CHECKING:
    from bench.data.labelled import Vocabulary
    from bench.tasks.openvocab_config import OpenVocabularyConfig

SPLIT_GROUPS = {"train": ("seen",), "words": ("seen", "unseen", "word")}
OTHER_GROUPS = ("seen", "unseen")


def asked(vocabulary: Vocabulary, split: str) -> NDArray[np.int64]:
    """Classes of a vocabulary that pictures of a split are asked about, ascending.

    Those that are seen in training; in evaluation also the unseen ones, but those with words that training lacks in ``words`` alone.
    """
    groups = SPLIT_GROUPS.get(split, OTHER_GROUPS)
    return np.flatnonzero([group in groups for group in vocabulary.groups])


def list_keys(draws: NDArray[np.uint64], classes: int, length: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """What draws [B] say of lists of `length` of `classes`: keys [B, classes] and order [B, length] of `draw_list`."""
    return stream(draws, Salt.OPENVOCAB_LIST, classes), stream(draws, Salt.OPENVOCAB_ORDER, length)


def draw_list(
    pool: NDArray[np.int64], present: NDArray[np.int64], keys: NDArray[np.uint64], order: NDArray[np.uint64]
) -> NDArray[np.int64]:
    """[T] different classes of `pool` in random order, a function of the arguments alone.

    Args:
        pool: classes to choose from, ascending, at least T.
        present: classes that must be among them as far as they are in the pool and there is room; which ones else, the keys say.
        keys: of the pool's classes, see `list_keys`; the lowest are chosen.
        order: [T], likewise; the list's order.
    """
    absent = ~(pool[:, None] == present).any(1)
    chosen = pool[np.lexsort((keys, absent))[: len(order)]]
    return chosen[order.argsort(kind="stable")]


def relabel(labels: NDArray[np.uint16], chosen: NDArray[np.int64]) -> NDArray[np.uint16]:
    """Labels by position in the vocabulary -> by position in the list `chosen`; `VOID` where the class is not on it."""
    table = np.full(VOID + 1, VOID, np.uint16)
    table[chosen] = np.arange(len(chosen))
    return table[labels]


def present_in(labels: NDArray[np.uint16]) -> NDArray[np.int64]:
    """Classes that labels show, ascending, `VOID` among them if there is any."""
    return np.flatnonzero(np.bincount(labels.ravel()))


class Prompts:
    """Names of classes as the token ids that architectures receive."""

    def __init__(self, config: OpenVocabularyConfig) -> None:
        """The tokenizer is opened on first use."""
        self._config = config
        self._tokenizer: Tokenizer | None = None

    def ids(self, names: Sequence[str]) -> NDArray[np.int64]:
        """[T, P, L] of T names, of synonyms parted by commas the first.

        Raises:
            UserError: a prompt is longer than ``text_length``, or the tokenizer is not installed.
        """
        if self._tokenizer is None:
            self._tokenizer = open_tokenizer(self._config.tokenizer)
        prompts = [prompt for name in names for prompt in self._prompts(name.split(",")[0].strip())]
        ids = self._tokenizer.encode(prompts, self._config.text_length)
        return ids.reshape(len(names), self._config.prompt_count, -1)

    def _prompts(self, name: str) -> list[str]:
        found = []
        for template in self._config.templates:
            if template == "imagenet-80":
                from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

                found += [make(name) for make in OPENAI_IMAGENET_TEMPLATES]
            else:
                found.append(template.replace("{}", name))
        return found
