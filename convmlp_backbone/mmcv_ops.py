"""MMCV's compiled operators where MMCV came without them: torchvision's instead.

Of the hundred functions of ``mmcv._ext``, detectors of upright boxes call NMS and RoIAlign, and
torchvision brings both, compiled, for CPUs and GPUs. ``offer()`` puts a finder at the end of
``sys.meta_path``: Python asks it for ``mmcv._ext`` only when nobody else had it, so that an MMCV
with operators never meets it, and nothing of MMCV is changed. What torchvision lacks can be
imported, and raises when called.
"""

import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

from torch import Tensor

from .errors import UserError


class Operators(MetaPathFinder, Loader):
    """Finds and fills the module ``mmcv._ext``."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(name, self, origin='torchvision') if name == 'mmcv._ext' else None

    def exec_module(self, module: ModuleType) -> None:
        def no_compiler():
            return "none, the operators are torchvision's"

        vars(module).update(
            nms=nms,
            roi_align_forward=roi_align_forward,
            roi_align_backward=roi_align_backward,
            get_compiler_version=no_compiler,
            get_compiling_cuda_version=no_compiler,
            __getattr__=missing,
        )


def offer() -> None:
    """Let ``import mmcv.ops`` find torchvision's operators if there are none of MMCV's own."""
    if not any(isinstance(finder, Operators) for finder in sys.meta_path):
        sys.meta_path.append(Operators())


def missing(name: str) -> Callable[..., NoReturn]:
    """A function that tells how to get the operator ``name``."""
    if name.startswith('__'):  # what Python itself asks a module for
        raise AttributeError(name)

    def operator(*args, **kwargs):
        raise UserError(
            f'MMCV is here without its compiled operators, and torchvision has no '
            f'{name}: compile them, `OPS=1 make setup`, or in an environment of your '
            'own as docs/faq.md says'
        )

    return operator


def nms(bboxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices (K,) of the boxes (N, 4) that stay, best first."""
    import torch
    from torchvision.ops import nms

    if offset:
        missing('nms with offset=1')()
    # Of equal scores, of which bfloat16 has many, MMCV takes another first than torchvision: that
    # which this sort puts first.
    order = scores.sort(0, descending=True)[1]
    ranks = torch.arange(len(order), 0, -1, dtype=torch.float32, device=order.device)
    return order[nms(bboxes[order].float(), ranks, iou_threshold)]


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the pooled regions to ``output`` (K, C, aligned_height, aligned_width)."""
    from torchvision.ops import roi_align

    if pool_mode == 0:
        missing('roi_align with pool_mode="max"')()
    output.copy_(
        roi_align(
            input, rois, (aligned_height, aligned_width), spatial_scale, sampling_ratio, aligned
        )
    )


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Write the gradient of the features to ``grad_input`` (N, C, H, W)."""
    import torch
    import torchvision  # noqa: F401  registers the operator

    grad_input.copy_(
        torch.ops.torchvision._roi_align_backward(
            grad_output,
            rois,
            spatial_scale,
            aligned_height,
            aligned_width,
            *grad_input.shape,
            sampling_ratio,
            aligned,
        )
    )
