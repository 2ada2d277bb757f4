"""Where the task ``openvocab`` gets its pictures from: rendered ones, or files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.data import named
from bench.data.labelled_sets import LabelledSpec, open_labelled
from bench.errors import UserError

if TYPE_CHECKING:
    from bench.data.cache_folder import Progress
    from bench.data.labelled import LabelledImages
    from bench.tasks.openvocab_config import OpenVocabularyConfig


def render(config: OpenVocabularyConfig, cache_dir: Path, report: Progress | None = None) -> None:
    """Render what is missing of the embedded pictures."""
    named.prepare(config.named_spec, cache_dir, report, config.splits)


def open_pictures(
    config: OpenVocabularyConfig, split: str, cache_dir: Path, trained_on: tuple[str, ...] = ()
) -> LabelledImages:
    """``train``, ``validation`` or ``test``, and ``words`` of embedded ones; of files as many as the options allow.

    `trained_on` are the names of the training vocabulary, which tell seen classes of real data from unseen ones.

    Raises:
        UserError: the data is not there.
    """
    if config.embedded:
        return named.open_named(config.named_spec, split, cache_dir, verify=False)
    tested = split == "test" and config.test_data is not None
    data = config.test_data if tested and config.test_data is not None else config.data
    path, class_file, meant = config.data_path, config.class_file, {}
    if split == "test" and config.test_path is not None:
        path, meant["task.data_path"] = config.test_path, "task.test_path"
    elif tested:
        meant["task.data_path"] = "task.data_path (or a folder of its own for task.test_data in task.test_path)"
    if split == "test" and (tested or config.test_class_file is not None):
        class_file, meant["task.class_file"] = config.test_class_file, "task.test_class_file"
    if path is None:
        raise UserError(f"task.data_path is not set: give the folder of {data}, or set task.data: embedded")
    spec = LabelledSpec(
        data=data,
        path=Path(path).expanduser(),
        class_file=None if class_file is None else Path(class_file).expanduser(),
        trained_on=trained_on,
        ignore_index=config.ignore_index if data == "folder" else None,
        limit=config.image_limit(split),
        meant=meant,
    )
    return open_labelled(spec, split)
