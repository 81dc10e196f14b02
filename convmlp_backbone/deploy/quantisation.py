"""int8 by NNCF: a float32 file, and images like those it will see, to a file in 8 bits."""

import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import numpy as np

from ..errors import UserError
from ..runtime import Runtime, prepare
from .agreement import given

IMAGES = 128  # to calibrate on, at most: what is measured are ranges
MULTIPLY = ('Conv', 'Gemm', 'MatMul')


def require_nncf() -> None:
    if not find_spec('nncf'):
        raise UserError('int8 needs nncf: pip install "convmlp-backbone[int8]"')


def quantise(file: Path, path: Path, images: Sequence[np.ndarray]) -> None:
    """Write the ONNX ``file`` as ``path``, also ONNX, in which what multiplies does so in int8.

    Decoding, NMS, norms and sums stay in float32. Each tensor gets one range, also where a layer
    works on (N, height * width, C): one for each of the tokens would bind the file to one size.

    Args:
        images: RGB photos, whose activations set the ranges.
    """
    require_nncf()
    with mock.patch.dict(os.environ, NNCF_CI='1'):  # it tells nobody that it was used
        import nncf
    import onnx
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        QuantizationParameters,
    )

    nncf.set_log_level('ERROR')
    runtime, model = Runtime(file, 'onnxruntime'), onnx.load(file)
    facts = runtime.facts

    def inputs(photo: np.ndarray) -> dict[str, np.ndarray]:
        image = prepare(photo, facts['resize'])
        found = dict(images=given(facts, image[None]))
        if facts['task'] == 'segmentation':
            found['size'] = np.array(image.shape[:2], np.int64)
        return found

    others = {node.op_type for node in model.graph.node} - set(MULTIPLY)
    model = nncf.quantize(
        model,
        nncf.Dataset(images, inputs),
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(types=sorted(others), validate=False),
        advanced_parameters=AdvancedQuantizationParameters(
            activations_quantization_params=QuantizationParameters(per_channel=False)
        ),
    )
    properties = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**properties, 'convmlp.precision': json.dumps('int8')})
    onnx.save(model, path)
