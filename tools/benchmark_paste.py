"""Time pasting masks on the CPU, MMDetection's way and ours, and weigh the result.

    python tools/benchmark_paste.py --instances 100 --size 1080 1920 --threads 2

Both start from the logits of the boxes' own classes. Boxes have sides of 16 to 512
pixels, as many from 16 to 32 as from 256 to 512; masks are soft, dented ellipses.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

STOCK = 'MMDetection'


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--instances', type=int, default=100, help='masks to time')
    parser.add_argument(
        '--size', type=int, nargs=2, default=(1080, 1920), metavar=('H', 'W')
    )
    parser.add_argument('--threads', type=int, default=2, help='of PyTorch')
    parser.add_argument('--repeats', type=int, default=21, help='rounds, interleaved')
    parser.add_argument(
        '--many', type=int, default=1000, help='masks whose memory is measured'
    )
    return parser.parse_args(args)


def made_up(number: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Logits ``(n, 28, 28)`` and boxes ``(n, 4)`` inside the picture."""
    import torch

    generator = torch.Generator().manual_seed(0)
    random = partial(torch.rand, generator=generator)
    frame = torch.tensor([size[1], size[0]])
    sides = torch.minimum(16 * 32 ** random(number, 2), frame)
    corners = random(number, 2) * (frame - sides)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 28)] * 2, indexing='ij')
    radius = (x**2 + y**2).sqrt() + 0.2 * random(number, 7, 7).repeat_interleave(
        4, 1
    ).repeat_interleave(4, 2)
    return 8 * (1 - radius), torch.cat([corners, corners + sides], 1)


def contestants(size: tuple[int, int]) -> dict[str, Callable[[Tensor, Tensor], Any]]:
    """What turns logits and boxes into masks, by name."""
    import torch
    from mmdet.models.roi_heads.mask_heads import FCNMaskHead
    from mmengine.config import ConfigDict
    from mmengine.structures import InstanceData

    from mmdet_centermask.models.mask_results import PASTE

    head = FCNMaskHead(num_convs=0, num_classes=1)
    meta = dict(ori_shape=size, scale_factor=(1.0, 1.0))

    def stock(logits: Tensor, boxes: Tensor) -> Tensor:
        labels = torch.zeros(len(boxes), dtype=torch.long)
        (result,) = head.predict_by_feat(
            [logits[:, None]],
            [InstanceData(bboxes=boxes.clone(), labels=labels)],
            [meta],
            ConfigDict(mask_thr_binary=0.5),
        )
        return result.masks

    def ours(paste: Callable, logits: Tensor, boxes: Tensor) -> Any:
        return paste(logits.sigmoid(), boxes, size, 0.5)

    return {STOCK: stock} | {f: partial(ours, paste) for f, paste in PASTE.items()}


def peak_mb(call: Callable[[], Any]) -> float:
    """Peak of the process's memory during the call, above that before."""

    def status(field: str) -> float:
        lines = Path('/proc/self/status').read_text().splitlines()
        (line,) = (line for line in lines if line.startswith(field))
        return int(line.split()[1]) / 2**10

    gc.collect()
    Path('/proc/self/clear_refs').write_text('5')  # forgets the peak so far
    before = status('VmRSS')
    result = call()
    peak = status('VmHWM')
    del result
    return peak - before


def rounds(calls: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each call, in turns; freeing the result counts."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(repeats + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            if i >= 2:  # warm by then
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def main(args: argparse.Namespace) -> None:
    import numpy as np
    import torch

    from mmdet_centermask.benchmark.hardware import cpu_name

    torch.set_num_threads(args.threads)
    size = tuple(args.size)
    pastes = contestants(size)
    many = made_up(args.many, size)
    # Before the timing, from which memory might be left over. The hungriest last.
    memory = {
        name: peak_mb(partial(pastes[name], *many)) for name in reversed(list(pastes))
    }
    few = made_up(args.instances, size)
    times = rounds(
        {name: partial(paste, *few) for name, paste in pastes.items()}, args.repeats
    )
    answers = {name: paste(*few) for name, paste in pastes.items()}
    pixels = {
        name: answer.numpy() if torch.is_tensor(answer) else answer.to_ndarray() > 0
        for name, answer in answers.items()
    }
    width, height = (few[1][:, 2:] - few[1][:, :2]).mean(0).tolist()
    print(
        f'{args.instances} masks into {size[0]} x {size[1]}, boxes of {height:.0f} x '
        f'{width:.0f} on average, {pixels[STOCK].sum()} pixels set; torch '
        f'{torch.__version__}, {args.threads} threads, {cpu_name()}\n'
    )
    print(f'| | ms | quartiles | times as fast | other pixels | MB for {args.many} |')
    print('|---|---|---|---|---|---|')
    for name in pastes:
        low, middle, high = np.percentile(times[name], [25, 50, 75])
        ratio = np.median(times[STOCK]) / middle
        other = (pixels[name] != pixels[STOCK]).sum()
        print(
            f'| {name} | {middle:.1f} | {low:.1f}-{high:.1f} | {ratio:.1f} | {other} '
            f'| {memory[name]:.0f} |'
        )


if __name__ == '__main__':
    main(parse_args())
