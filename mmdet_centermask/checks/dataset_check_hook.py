"""The cheap part of tools/check_dataset.py, before the first step of every run."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from mmdet.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..experiment import ExperimentError
from .checking import FileReport, check_config
from .finding import RUN_WIDE, Finding
from .report import in_one_line, totals

LEVELS = {'error': logging.ERROR, 'warning': logging.WARNING}
TOOL = 'tools/check_dataset.py CONFIG shows all of it'


@HOOKS.register_module()
class DatasetCheckHook(Hook):
    """Checks annotation files, classes and a few pictures before a run.

    Files of more than 32 MB are not parsed; only their categories are compared.
    Errors and warnings are logged. Nothing is changed, no random number is drawn.

    Args:
        enabled: `default_hooks = dict(dataset_check=dict(enabled=False))` switches it
            off.

    Raises:
        ExperimentError: The classes of file, `metainfo` and model contradict each
            other, or a file is no COCO; the run could only end in wrong numbers.
    """

    priority = 'VERY_HIGH'

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._checked: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        """Check the data of training and validation."""
        self.check(runner, ('train', 'val'))

    def before_val(self, runner: Runner) -> None:
        """Check the data of validation, unless training has."""
        self.check(runner, ('val',))

    def before_test(self, runner: Runner) -> None:
        """Check the data of the test."""
        self.check(runner, ('test',))

    @master_only
    def check(self, runner: Runner, splits: Sequence[str]) -> None:
        """Check what the splits read, each once. May come before mmdet reads it."""
        splits = [split for split in splits if split not in self._checked]
        self._checked.update(splits)
        if not self.enabled or not splits:
            return
        reports, _ = check_config(
            runner.cfg, splits, 'step0', track=lambda items, doing: items
        )
        for report in reports:
            for finding in report.findings:
                if finding.severity in LEVELS:
                    runner.logger.log(
                        LEVELS[finding.severity],
                        f'{report.source.path}: {in_one_line(finding)}',
                    )
        fatal = first_fatal(reports)
        if fatal is not None:
            raise ExperimentError(in_one_line(fatal))
        if reports:
            runner.logger.info(f'dataset check: {totals(reports)}; {TOOL}')


def first_fatal(reports: Sequence[FileReport]) -> Finding | None:
    """The first error that makes the whole run meaningless."""
    for report in reports:
        for finding in report.findings:
            if finding.severity == 'error' and finding.subject in RUN_WIDE:
                return finding
    return None
