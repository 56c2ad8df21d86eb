"""8-bit convolutions: which, and that the file still runs everywhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from exported_tiny import real_pictures

from mmdet_centermask.deploy.int8 import OUTPUT_LAYERS, quantise
from mmdet_centermask.deploy.predict import Predictor


@pytest.mark.slow
def test_quantised_convs_and_answers(exported):
    predictor = Predictor(exported.folder, threads=1)
    pictures = real_pictures()

    def inputs():
        for name in ('cat', 'face', 'rocket'):
            image, _ = predictor.prepare(pictures[name])
            sizes = np.array([image.shape[1:]])
            yield dict(images=predictor.pad(image)[None], sizes=sizes)

    folder = exported.folder
    quantise(folder / 'model.onnx', folder / 'model_int8.onnx', inputs())
    try:
        model = onnx.load(folder / 'model_int8.onnx')
        producers = {out: node for node in model.graph.node for out in node.output}
        convs = [node for node in model.graph.node if node.op_type == 'Conv']
        quantised = {
            node.name
            for node in convs
            # A float weight is stored, and nobody's output.
            if (maker := producers.get(node.input[1])) is not None
            and maker.op_type == 'DequantizeLinear'
        }
        plain = {
            node.name for node in convs if OUTPUT_LAYERS.search(' '.join(node.input))
        }
        assert len(quantised) > 40
        # Class, box and centerness on five levels, mask logits, attention.
        assert len(plain) == 17
        assert not quantised & plain
        for runtime in ('onnxruntime', 'openvino'):
            found = Predictor(folder, runtime, 'model_int8.onnx', threads=1)(
                pictures['cat'], float('-inf')
            )
            assert len(found['boxes']) > 10, runtime
    finally:
        (folder / 'model_int8.onnx').unlink()
