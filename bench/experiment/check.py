"""`isochron check`: the conformance kit on a registered architecture or on any importable factory."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bench.config import ArmConfig, parse_overrides
from bench.conformance import Finding, check
from bench.experiment import resolve
from bench.registry import load_object, make_config, preset_options
from bench.registry import task as task_entry


def check_architecture(
    architecture: str, task_name: str, preset: str, changes: Sequence[str], cache_dir: Path, device: str = "auto"
) -> list[Finding]:
    """Findings on `architecture` (a registered name, or ``pkg.file:Factory``) under a task's preset.

    `changes` are options of the architecture (``width=64``) and, below ``task.``, of the task.

    Raises:
        UserError: the name, an option or the task is unknown.
    """
    options = parse_overrides(changes)
    of_task = options.pop("task", {})
    source = {"factory": architecture} if ":" in architecture else {"architecture": architecture}
    arm = ArmConfig.model_validate({"name": "checked", **source})
    made = load_object(task_entry(task_name).target, "task")
    of_task = {**preset_options(made, preset), **of_task}
    task = made(make_config(made, of_task, "task"), cache_dir)
    checked = resolve.architecture_class(arm)
    resolve.require_data(arm, "architecture", made, of_task)
    options = resolve.with_shared(checked, options, resolve.shared_options(made, of_task), "options")
    arm = arm.model_copy(update={"options": {**preset_options(checked, preset), **options}})
    if hasattr(checked, "config_class"):
        make_config(checked, arm.options, "options")  # a wrong option is one line, no failed check
    return check(partial(resolve.build, arm), task, resolve.pick_device(device))
