"""Where the time of a prediction goes, for any of MMDetection's detectors.

The parts of a detector are watched from outside while it predicts as always. Of
nested parts the innermost counts: NMS is what the box head's ``predict`` takes beyond
the network in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

from torch import nn

from .timing import now

NETWORK = ('backbone', 'neck', 'box head', 'mask branch')
STAGES = (
    'pre-processing',
    'backbone',
    'neck',
    'box head',
    'candidates, NMS',
    'mask branch',
    'paste',
    'rest',
)

# Modules, whose every call is a stage. A cascade's heads are lists.
MODULES = {
    'data_preprocessor': 'pre-processing',
    'backbone': 'backbone',
    'neck': 'neck',
    'rpn_head': 'box head',
    'bbox_head': 'box head',
    'roi_head.bbox_roi_extractor': 'box head',
    'roi_head.bbox_head': 'box head',
    'semantic_head': 'mask branch',
    'mask_head': 'mask branch',
    'panoptic_head': 'mask branch',
    'roi_head.mask_roi_extractor': 'mask branch',
    'roi_head.mask_head': 'mask branch',
    'roi_head.mask_iou_head': 'mask branch',
}
# Methods, for what lies around and between the modules.
METHODS = {
    'rpn_head.predict': 'candidates, NMS',
    'bbox_head.predict': 'candidates, NMS',
    'predict_boxes': 'candidates, NMS',  # CenterMask
    'roi_head.predict_bbox': 'candidates, NMS',
    'bbox_head._mask_predict_by_feat_single': 'mask branch',  # RTMDet-Ins
    'bbox_head._bbox_mask_post_process': 'paste',  # the same, with its NMS
    'mask_head.predict': 'paste',
    'panoptic_head.predict': 'paste',
    'panoptic_fusion_head.predict': 'paste',
    'roi_head.predict_mask': 'paste',
    'roi_head.predict': 'paste',  # CenterMask; of others what predict_* leave over
}


class StageClock:
    """Seconds of nested stages, each without those inside it.

    Args:
        clock: Seconds.
    """

    def __init__(self, clock: Callable[[], float] = now) -> None:
        self.clock = clock
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    def enter(self, stage: str) -> None:
        self._note()
        self._open.append(stage)

    def leave(self) -> None:
        self._note()
        self._open.pop()

    def _note(self) -> None:
        time = self.clock()
        if self._open:
            stage = self._open[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + time - self._since
        self._since = time


def stage_seconds(
    model: nn.Module, predict: Callable[[], Any], clock: Callable[[], float] = now
) -> dict[str, float]:
    """Seconds of each stage in one call of ``predict``, in the order of ``STAGES``.

    Stages that the detector lacks are left out. ``rest`` is what no stage claims; the
    sum is the whole call.
    """
    stages = StageClock(clock)
    with watched(model, stages):
        stages.enter('rest')
        predict()
        stages.leave()
    return {name: stages.seconds[name] for name in STAGES if name in stages.seconds}


@contextmanager
def watched(model: nn.Module, stages: StageClock) -> Iterator[None]:
    """Within it, the parts of ``model`` report to ``stages``."""
    with ExitStack() as stack:
        for path, stage in MODULES.items():
            for module in modules_at(model, path):
                stack.enter_context(watched_module(module, stage, stages))
        for path, stage in METHODS.items():
            *owner, name = path.split('.')
            for module in modules_at(model, '.'.join(owner)):
                if hasattr(module, name):
                    stack.enter_context(watched_method(module, name, stage, stages))
        yield


def modules_at(model: nn.Module, path: str) -> list[nn.Module]:
    """The modules of that name: none, one, or one for each step of a cascade."""
    found: Any = model
    for name in path.split('.') if path else ():
        found = getattr(found, name, None)
    if isinstance(found, nn.ModuleList):
        return list(found)
    return [found] if isinstance(found, nn.Module) else []


@contextmanager
def watched_module(module: nn.Module, stage: str, stages: StageClock) -> Iterator[None]:
    handles = [
        # Before hooks that prepare the inputs, after those that finish the outputs.
        module.register_forward_pre_hook(lambda *_: stages.enter(stage), prepend=True),
        module.register_forward_hook(lambda *_: stages.leave()),
    ]
    yield
    for handle in handles:
        handle.remove()


@contextmanager
def watched_method(
    module: nn.Module, name: str, stage: str, stages: StageClock
) -> Iterator[None]:
    method = getattr(module, name)

    @wraps(method)
    def timed(*args: Any, **kwargs: Any) -> Any:
        stages.enter(stage)
        result = method(*args, **kwargs)
        stages.leave()
        return result

    own = vars(module).get(name)
    setattr(module, name, timed)
    yield
    if own is None:
        delattr(module, name)
    else:
        setattr(module, name, own)
