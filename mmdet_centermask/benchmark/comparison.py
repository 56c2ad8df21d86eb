"""Instance segmenters side by side: one run, the same pictures, the same threads."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.utils import track_iter_progress

from ..experiment import ExperimentError, build_runner, check_checkpoint, enable_fast
from .any_config import find_any_config
from .cpu_budget_hook import average_precisions
from .detector import without_pretrained
from .new_process import in_new_process, one_line
from .timing import quartiles, take_turns
from .workload import MODES, OPTIMIZED, Ready, Workload, make_ready, memory_of

Row = dict[str, Any]
PICTURES = ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.tiff')


class Entrant(NamedTuple):
    """A line of the comparison."""

    name: str
    """As the table shows it."""
    config: str
    checkpoint: str | None
    mode: str


class Data(NamedTuple):
    """Pictures, and the truth about them where it is known."""

    pictures: tuple[str, ...]
    """Files that are timed."""
    annotations: str | None = None
    """COCO's JSON of all pictures that count for AP."""
    folder: str | None = None
    """Where its file names lead from."""


def parse_entrant(text: str) -> Entrant:
    """Read ``CONFIG[:CHECKPOINT][@MODE]``.

    Raises:
        ExperimentError: No such config, checkpoint or mode.
    """
    rest, _, mode = text.partition('@')
    mode = mode or 'default'
    if mode not in MODES:
        raise ExperimentError(
            f'{text!r}: mode={mode!r} is unknown, choose one of {", ".join(MODES)}'
        )
    config, _, checkpoint = rest.partition(':')
    try:
        path = find_any_config(config)
    except FileNotFoundError as error:
        raise ExperimentError(str(error)) from error
    check_checkpoint('checkpoint', checkpoint or None)
    name = Path(path).stem + ('' if mode == 'default' else f' @{mode}')
    return Entrant(name, path, checkpoint or None, mode)


def find_data(path: Path, folder: Path | None, count: int) -> Data:
    """The pictures that ``--data`` and ``--images`` lead to, ``count`` for timing.

    Args:
        path: A folder of pictures, or COCO's JSON.
        folder: Of the JSON's pictures.
        count: Evenly spread over all there are.

    Raises:
        ExperimentError: Nothing is there, or a JSON has no folder.
    """
    if path.is_dir():
        files = sorted(p for p in path.iterdir() if p.suffix.lower() in PICTURES)
        if not files:
            raise ExperimentError(f'--data={str(path)!r} holds no pictures')
        return Data(tuple(map(str, spread(files, count))))
    if not path.is_file():
        raise ExperimentError(f'--data={str(path)!r} is neither a folder nor a file')
    if folder is None or not folder.is_dir():
        raise ExperimentError(
            f'--images={str(folder) if folder else None!r} is not a folder; the file '
            'names of a JSON lead from there'
        )
    names = [image['file_name'] for image in json.loads(path.read_text())['images']]
    pictures = tuple(str(folder / name) for name in spread(names, count))
    return Data(pictures, str(path), str(folder))


def spread(items: Sequence[Any], count: int) -> list[Any]:
    """``count`` of the items at most, the first and then at equal distances."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def compare(
    entrants: Sequence[Entrant], data: Data, workload: Workload, rounds: int
) -> list[Row]:
    """A row for each entrant.

    Args:
        entrants: With different names.
        data: The same for all.
        workload: ``detections`` and ``threads``.
        rounds: Over all pictures and entrants.

    Returns:
        ``name``, ``mode`` and either ``error``, one line that says why it did not run,
        or ``parameters``, ``flops`` and ``shape`` of the first picture, ``ms`` of a
        picture (three quartiles), ``memory_mb``, and ``box_ap`` and ``mask_ap``, None
        where there is no checkpoint or no truth.

    Raises:
        ExperimentError: Two entrants share a name.
    """
    names = [entrant.name for entrant in entrants]
    if len(set(names)) < len(names):
        raise ExperimentError(f'{names}: two entrants share a name')
    rows: dict[str, Row] = {}
    ready: dict[str, Ready] = {}
    # Minutes each on a CPU: a bar, away from the table on stdout.
    for entrant in track_iter_progress(list(entrants), file=sys.stderr):
        own = workload._replace(
            config=entrant.config,
            mode=entrant.mode,
            checkpoint=entrant.checkpoint,
            pictures=data.pictures,
        )
        row = rows[entrant.name] = dict(name=entrant.name, mode=entrant.mode)
        try:
            row |= accuracy(entrant, data)
            ready[entrant.name] = make_ready(own)
            row |= what_it_takes(own, ready[entrant.name])
        except Exception as error:  # a detector that fails is a line of the table
            ready.pop(entrant.name, None)
            row['error'] = one_line(error)
    for name, ms in timings(ready, rounds).items():
        rows[name]['ms'] = ms
    return list(rows.values())


def what_it_takes(workload: Workload, ready: Ready) -> Row:
    """What is known without timing; every picture is predicted once."""
    found = [len(sample.pred_instances) for call in ready.calls for sample in call()]
    return dict(
        found=min(found),
        shape=list(ready.shape),
        parameters=ready.parameters,
        flops=ready.flops,
        memory_mb=memory_of(workload._replace(score_thr=ready.score_thr)),
    )


def timings(ready: dict[str, Ready], rounds: int) -> dict[str, list[float]]:
    """Quartiles of the milliseconds of a picture; all take turns on each picture."""
    seconds: dict[str, list[float]] = {name: [] for name in ready}
    batches = len(next(iter(ready.values())).calls) if ready else 0
    for i in range(batches):
        calls = {name: r.calls[i] for name, r in ready.items()}
        for name, values in take_turns(calls, rounds, warm_up=1).items():
            seconds[name] += values
    return {n: [1000 * q for q in quartiles(s)] for n, s in seconds.items()}


def accuracy(entrant: Entrant, data: Data) -> Row:
    """Box and mask AP on all pictures, where there are a checkpoint and truth."""
    if entrant.checkpoint is None or data.annotations is None:
        return dict(box_ap=None, mask_ap=None)
    box_ap, mask_ap = in_new_process(evaluate, entrant, data)
    return dict(box_ap=box_ap, mask_ap=mask_ap)


def evaluate(entrant: Entrant, data: Data) -> tuple[float, float]:
    """Box and mask AP, by mmdet's own test loop."""
    cfg = on_data(Config.fromfile(entrant.config), data)
    cfg.load_from = entrant.checkpoint
    cfg.work_dir = str(Path('work_dirs') / 'compare' / Path(entrant.config).stem)
    if entrant.mode in OPTIMIZED:
        enable_fast(cfg, **OPTIMIZED[entrant.mode])
    return average_precisions(build_runner(cfg).test())


def on_data(cfg: Config, data: Data) -> Config:
    """The config with its test on other pictures, whatever it was made for."""
    assert data.annotations is not None
    truth = json.loads(Path(data.annotations).read_text())
    names = tuple(category['name'] for category in truth['categories'])
    pipeline = cfg.test_dataloader.dataset.pipeline
    cfg.test_dataloader = dict(
        batch_size=1,
        num_workers=0,
        sampler=dict(type='DefaultSampler', shuffle=False),
        dataset=dict(
            type='CocoDataset',
            ann_file=data.annotations,
            data_prefix=dict(img=f'{data.folder}/'),
            metainfo=dict(classes=names),
            test_mode=True,
            pipeline=pipeline,
        ),
    )
    cfg.test_evaluator = dict(
        type='CocoMetric', ann_file=data.annotations, metric=['bbox', 'segm']
    )
    cfg.model = without_pretrained(cfg.model)
    cfg.launcher = 'none'
    return cfg
