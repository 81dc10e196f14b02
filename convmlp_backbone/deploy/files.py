"""The formats: ONNX, OpenVINO's IR and ``torch.export``'s, any batch, height and width."""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

import torch

from ..errors import UserError
from ..files import whole_file
from ..runtime import the_only
from .models import Exportable

ENDINGS = ('.onnx', '.xml', '.pt2')


@contextmanager
def quiet() -> Iterator[None]:
    """Without what PyTorch tells itself, and of operators that no model here has."""
    loggers = [logging.getLogger(name) for name in ('torch.onnx', 'onnxscript', 'onnx_ir')]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


# PyTorch rounds a pooled size by a branch on the remainder, which would bind the exported program
# to even or to odd sizes; for positive numbers // is the same without the branch.
def size_without_branch() -> AbstractContextManager:
    return mock.patch('torch._meta_registrations.div_rtn', lambda x, y: x // y, create=True)


def trace(module: Exportable) -> torch.export.ExportedProgram:
    """``module`` as a program for any batch, height and width.

    Raises:
        UserError: A part of it cannot be traced.
    """
    # On the coarsest level, of stride 128, still more than one cell: one would be a special case.
    channels = module.channels
    shape = (2, channels, 200, 330) if module.normalised else (2, 200, 330, channels)
    images = torch.zeros(shape, dtype=torch.float32 if module.normalised else torch.uint8)
    any_number = torch.export.Dim.DYNAMIC
    dynamic: tuple = ({i: any_number for i in range(4) if i != (1 if module.normalised else 3)},)
    inputs: tuple[torch.Tensor, ...] = (images,)
    if module.task == 'segmentation':
        inputs, dynamic = (images, torch.tensor([210, 340])), (*dynamic, {})
    try:
        with torch.no_grad(), quiet(), size_without_branch():
            return torch.export.export(module, inputs, dynamic_shapes=dynamic, strict=False)
    except Exception as error:  # a toolbox's head may do anything
        reason = ' '.join(str(error).split())[:200]
        raise UserError(f'cannot be exported: {type(error).__name__}: {reason}') from error


@contextmanager
def unfinished(
    program: torch.export.ExportedProgram | Path, path: Path, facts: dict
) -> Iterator[Path]:
    """Write ``program`` beside ``path``; it takes that name where the block ends without error.

    Args:
        program: A traced module, or an ONNX file with its facts.
    """
    if path.suffix not in ENDINGS:
        raise UserError(f'{path}: expected a name that ends in {", ".join(ENDINGS)}')
    try:
        with whole_file(path) as part:
            {'.pt2': write_pt2, '.onnx': write_onnx, '.xml': write_openvino}[path.suffix](
                program, part, facts
            )
            yield part
            if path.suffix == '.xml':
                os.replace(part.with_suffix('.bin'), path.with_suffix('.bin'))
    except ImportError as error:
        raise UserError(f'{error}; pip install "convmlp-backbone[export]"') from None
    finally:
        if path.suffix == '.xml':
            part.with_suffix('.bin').unlink(missing_ok=True)


def write_pt2(program: torch.export.ExportedProgram | Path, path: Path, facts: dict) -> None:
    assert not isinstance(program, Path)
    torch.export.save(program, path, extra_files={'convmlp.json': json.dumps(facts)})


def write_onnx(program: torch.export.ExportedProgram | Path, path: Path, facts: dict) -> None:
    if isinstance(program, Path):
        shutil.copyfile(program, path)
        return
    inputs = ['images', 'size'] if facts['task'] == 'segmentation' else ['images']
    with torch.no_grad(), quiet(), size_without_branch():
        onnx = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            input_names=inputs,
            output_names=facts['outputs'],
        )
    assert onnx is not None  # as dynamo=True gives it
    for node in onnx.model.graph.all_nodes():
        node.metadata_props.clear()  # the lines of code, with this machine's paths
    onnx.model.metadata_props.update(
        {f'convmlp.{key}': json.dumps(value) for key, value in facts.items()}
    )
    onnx.save(path, external_data=False)


def write_openvino(program: torch.export.ExportedProgram | Path, path: Path, facts: dict) -> None:
    onnx = path.with_suffix('.onnx')
    try:
        write_onnx(program, onnx, facts)
        convert(onnx, path, facts)
    finally:
        onnx.unlink(missing_ok=True)


def convert(onnx: Path, path: Path, facts: dict) -> None:
    """An ONNX file as OpenVINO's IR."""
    import openvino

    # convert_model does the same, and tells of its use.
    model = the_only(openvino.Core).read_model(onnx)
    for key, value in facts.items():
        model.set_rt_info(json.dumps(value), ['convmlp', key])
    openvino.save_model(model, path, compress_to_fp16=False)
