"""`torch.export`: the saved program answers as the module does."""

from __future__ import annotations

import pytest
import torch
from tiny_centermask import batch_of, picture

from mmdet_centermask.deploy.exportable_centermask import ExportableCenterMask
from mmdet_centermask.deploy.torch_program import write_program


@pytest.mark.slow
def test_saved_program(exported, tmp_path):
    net = ExportableCenterMask(exported.model)
    write_program(net, tmp_path / 'model.pt2')
    program = torch.export.load(tmp_path / 'model.pt2').module(check_guards=False)
    # The deepest maps of the second and third batch have sides of 1.
    for pictures in (
        [picture(200, 310)],
        [picture(64, 64), picture(90, 60)],
        [picture(64, 64)],
    ):
        images, samples = batch_of(exported.model, *pictures)
        sizes = torch.tensor([sample.img_shape for sample in samples])
        with torch.no_grad():
            expected, found = net(images, sizes), program(images, sizes)
        assert len(found[0]) > 20
        for one, other in zip(expected, found, strict=True):
            torch.testing.assert_close(one, other)
