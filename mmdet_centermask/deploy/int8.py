"""The exported network with 8-bit convolutions, if it stays as good.

Static quantisation by onnxruntime: the ranges of all maps are measured on pictures of
the training set. The file keeps to ONNX's own operators (QuantizeLinear,
DequantizeLinear), which onnxruntime and OpenVINO both turn into 8-bit kernels.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import onnx
from mmengine.config import Config
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from .accuracy import average_precisions, read_dataset
from .predict import Predictor, load_picture

AP_LIMIT = 0.01  # one point, of box and of mask AP
FLOAT, INT8 = 'model.onnx', 'model_int8.onnx'

# The last convs give the answers: numbers of a few hundredths matter in them.
OUTPUT_LAYERS = re.compile(
    r'bbox_head\.conv_(cls|reg|centerness)|conv_logits|spatial_attention|conv_offset'
)


class Int8Verdict(NamedTuple):
    """AP of the network in floats and in 8 bits, by the names of the metric."""

    floats: dict[str, float]
    int8: dict[str, float]

    @property
    def holds(self) -> bool:
        """No mean AP has lost more than :data:`AP_LIMIT`."""
        return all(
            round(value - self.int8[name], 6) <= AP_LIMIT
            for name, value in self.floats.items()
            if name.endswith('_mAP')
        )


def write_int8(
    folder: str | Path,
    cfg: Config,
    calibration_pictures: int = 64,
    test_pictures: int | None = None,
) -> Int8Verdict:
    """Add `model_int8.onnx` to an exported folder, unless its AP falls.

    Args:
        folder: Written by `write_folder`.
        cfg: Calibrates on its training pictures, is judged on its test pictures.
        calibration_pictures: How many, spread over the training set.
        test_pictures: How many of the test set are judged, all by default.

    Returns:
        Both APs. Where they do not hold, the file has been removed.
    """
    folder = Path(folder)
    predictor = Predictor(folder)
    dataset = read_dataset(cfg, 'train')
    rows = np.linspace(0, len(dataset) - 1, min(calibration_pictures, len(dataset)))
    paths = [dataset.get_data_info(int(row))['img_path'] for row in rows]
    quantise(folder / FLOAT, folder / INT8, prepared_inputs(predictor, paths))
    verdict = Int8Verdict(
        *(
            average_precisions(Predictor(folder, model=name), cfg, test_pictures)
            for name in (FLOAT, INT8)
        )
    )
    if not verdict.holds:
        (folder / INT8).unlink()
    return verdict


def quantise(source: Path, target: Path, inputs: Iterator[dict]) -> None:
    """Write `source` with 8-bit convs, their ranges measured on `inputs`."""
    with TemporaryDirectory() as scratch:
        folded = Path(scratch, 'folded.onnx')
        quant_pre_process(source, folded, skip_symbolic_shape=True)
        quantize_static(
            folded,
            target,
            Inputs(inputs),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=['Conv'],
            nodes_to_exclude=output_convs(onnx.load(folded)),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )


def output_convs(model: onnx.ModelProto) -> list[str]:
    """Names of the convs whose weights belong to :data:`OUTPUT_LAYERS`."""
    return [
        node.name
        for node in model.graph.node
        if node.op_type == 'Conv' and OUTPUT_LAYERS.search(' '.join(node.input))
    ]


def prepared_inputs(
    predictor: Predictor, paths: Iterable[str | Path]
) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of the network for each picture."""
    for path in paths:
        image, _ = predictor.prepare(load_picture(path))
        yield dict(images=predictor.pad(image)[None], sizes=np.array([image.shape[1:]]))


class Inputs(CalibrationDataReader):
    """An iterator, as onnxruntime wants to read it."""

    def __init__(self, inputs: Iterator[dict]) -> None:
        self.inputs = inputs

    def get_next(self) -> dict | None:
        return next(self.inputs, None)
