"""What tools/dev/benchmark.py measures, and the process in which it does.

One process cannot tell how fast another way of handing out memory is: what it has kept stays.
"""

import copy
import ctypes
import functools
import logging
import multiprocessing
import signal
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from mmengine.structures import BaseDataElement
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from convmlp_backbone import ConvMLP
from convmlp_backbone.amp import predict_in_bf16
from convmlp_backbone.archs import ARCHS
from convmlp_backbone.commands.models import build_from_config
from convmlp_backbone.config import read_config
from convmlp_backbone.deploy.facts import IMAGENET
from convmlp_backbone.deploy.files import trace, write_onnx
from convmlp_backbone.deploy.models import wrapped
from convmlp_backbone.errors import UserError
from convmlp_backbone.fused import fuse_model
from convmlp_backbone.memory import resident
from convmlp_backbone.network import Network
from convmlp_backbone.runtime import the_only

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
FORMATS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
MATRIX = 'matrix products'
RUNTIMES = ('ONNX Runtime', 'OpenVINO')


def forward(call, args):
    """``call`` as what is measured: inference, or a training step without the optimizer."""
    amp = (
        torch.autocast(args.device.split(':')[0], DTYPES[args.dtype])
        if args.dtype != 'fp32'
        else nullcontext()
    )

    def infer(x):
        with torch.inference_mode(), amp:
            call(x)

    def train(x):
        with amp:
            outputs = call(x)
            outputs = outputs if isinstance(outputs, (tuple, list)) else [outputs]
            loss = sum(output.float().mean() for output in outputs)
        loss.backward()

    return train if args.train else infer


def random_statistics(model, seed=0):
    """Give every norm statistics, scales and shifts that folding must respect."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            with torch.no_grad():
                module.weight.uniform_(0.8, 1.2, generator=generator)
                module.bias.normal_(0, 0.1, generator=generator)
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.normal_(0, 0.1, generator=generator)
                    module.running_var.uniform_(0.8, 1.2, generator=generator)


def backbone_variants(size, args, shape):
    """``{name: callable}`` for a size of ConvMLP; the first is what ratios refer to.

    That is the network alone: batch norms one by one, images (N, C, H, W) until the first Conv-MLP
    stage, everything kept for the backward pass.
    """
    reference = Network(size).to(args.device).train(args.train)
    random_statistics(reference)

    def ours(**kwargs):
        model = ConvMLP(size, drop_path_rate=0, **kwargs)
        model.load_state_dict(reference.state_dict())
        return model.to(args.device).train(args.train)

    variants = {f'{size} reference': reference, f'{size} eager': ours()}
    if args.train:
        variants[f'{size} with_cp'] = ours(with_cp=True)
    else:
        variants[f'{size} fused'] = ours().fuse()
        if args.dtype != 'fp32':
            exact = torch.autocast(args.device.split(':')[0], enabled=False)
            variants[f'{size} fused, fp32'] = exact(ours().fuse().forward)
    if args.compile:
        # Constant weights let the compiler choose their layout; it does so only in inference.
        torch._inductor.config.freezing = not args.train
        model = ours() if args.train else ours().fuse()
        # One program a shape: with constant weights, that for any shape fails in torch 2.10.
        variants[f'{size} compiled'] = torch.compile(model, dynamic=False)
    if args.onnx or args.openvino:
        module = wrapped(ours().fuse().cpu(), IMAGENET, normalised=True)
        for name, call in exported(module, args, shape).items():
            variants[f'{size} {name}'] = call
    check_agreement(variants, args, shape)
    return variants


def exported(module, args, shape):
    """``{name: callable}``: an exportable module as export.py writes it, in the runtimes wanted."""
    dtypes = ['fp32'] if args.onnx else ['fp32', 'bf16']
    if args.train or args.device != 'cpu' or args.dtype not in dtypes:
        raise UserError(
            '--onnx measures inference on a CPU in fp32 only, --openvino in fp32 or bf16'
        )
    runtimes = {
        RUNTIMES[0]: args.onnx and onnx_runtime,
        RUNTIMES[1]: args.openvino
        and functools.partial(openvino_runtime, precision=args.dtype.replace('fp', 'f')),
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'model.onnx')
            write_onnx(trace(module), path, dict(task=module.task, outputs=list(module.outputs)))
            return {
                name: runtime(path, (args.batch, module.channels, *shape))
                for name, runtime in runtimes.items()
                if runtime
            }
    except ImportError as error:
        raise UserError(f'{error}; pip install "convmlp-backbone[export]"') from None


def inputs(x, names):
    """What an exported file takes: images, and of a segmentor the size of its map."""
    values = {'images': x.numpy(), 'size': np.array(x.shape[2:])}
    return {name: values[name] for name in names}


def onnx_runtime(path, shape):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Its threads would spin on in the turn of the next variant.
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
    names = [part.name for part in session.get_inputs()]
    return lambda x: [torch.from_numpy(y) for y in session.run(None, inputs(x, names))]


def openvino_runtime(path, shape, precision='f32'):
    import openvino

    core = the_only(openvino.Core)
    model = core.read_model(path)
    names = [part.any_name for part in model.inputs]
    model.reshape({'images': shape})
    request = core.compile_model(
        model,
        'CPU',
        {
            'PERFORMANCE_HINT': 'LATENCY',
            'INFERENCE_PRECISION_HINT': precision,
            'INFERENCE_NUM_THREADS': torch.get_num_threads(),
        },
    ).create_infer_request()
    return lambda x: [
        torch.from_numpy(y)
        for y in request.infer(inputs(x, names), share_inputs=True, share_outputs=True).values()
    ]


@torch.no_grad()
def check_agreement(variants, args, shape):
    """Raise if a variant computes something else than the reference."""
    if args.dtype != 'fp32':
        return
    # Training mode normalises by the batch, which a tiny one would make ill-conditioned.
    x = torch.randn(args.batch, 3, *shape, device=args.device)
    expected = None
    for name, call in variants.items():
        outputs = call(x)
        expected = expected or outputs
        for a, b in zip(outputs, expected, strict=True):
            error = float((a - b).abs().max() / b.abs().max())
            if not error < (1e-3 if args.train else 1e-4):
                raise UserError(f'{name} differs from the reference by {error:.1e}')


def whole_model_variants(config, args, shape):
    """A detector or segmentor of the mm toolboxes, and itself with a ResNet-50, exported too."""
    if args.train:
        raise UserError('--train measures backbones only: s, m or l')
    cfg = read_config(config)
    cfg.model.backbone.init_cfg = None
    resnet = copy.deepcopy(cfg)
    resnet.model.backbone = dict(type='ResNet', depth=50, num_stages=4, out_indices=(0, 1, 2, 3))
    resnet.model.neck.in_channels = [256, 512, 1024, 2048]
    variants, runtimes = {}, {}
    for name, part in (('ResNet-50', resnet), ('eager', cfg), ('fused', cfg)):
        torch.manual_seed(0)
        model = build_from_config(copy.deepcopy(part), args.device)
        # Else every anchor would be an object, and NMS take all the time.
        logging.disable(logging.INFO)  # a line for every parameter
        model.init_weights()
        logging.disable(logging.NOTSET)
        if name != 'fused' and (args.onnx or args.openvino):
            # OpenVINO and ONNX Runtime fold norms themselves; ours are folded as export does.
            whole = copy.deepcopy(model)
            getattr(whole.backbone, 'fuse', whole.backbone.eval)()
            module = wrapped(whole, cfg.model.data_preprocessor, normalised=True)
            for runtime, call in exported(module, args, shape).items():
                backbone = 'ResNet-50' if name == 'ResNet-50' else 'ConvMLP'
                runtimes[f'{Path(config).stem} {backbone}, {runtime}'] = call
        if name == 'fused':
            fuse_model(model)
        if args.dtype == 'bf16':
            predict_in_bf16(model)
        samples = [
            BaseDataElement(
                metainfo=dict(
                    img_shape=shape,
                    ori_shape=shape,
                    pad_shape=shape,
                    batch_input_shape=shape,
                    scale_factor=(1.0, 1.0),
                )
            )
            for _ in range(args.batch)
        ]
        variants[f'{Path(config).stem} {name}'] = lambda x, model=model, samples=samples: model(
            x, samples, mode='predict'
        )
    return {**variants, **runtimes}


def timm_variants(args):
    variants = {}
    for name in args.vs:
        import timm

        if not timm.is_model(name):
            raise UserError(f'--vs {name}: timm has no such model; timm.list_models() names all')
        # Some, such as Swin, must know the size; features_only leaves out the classifier.
        for extra in (dict(dynamic_img_size=True), dict(strict_img_size=False), {}):
            try:
                model = timm.create_model(name, features_only=True, **extra)
                break
            except TypeError:
                continue
        variants[name] = model.to(args.device, memory_format=FORMATS.get(args.memory_format)).train(
            args.train
        )
    return variants


built = {}  # in the process that measures: name -> (function, input)


def build(model, args, shape):
    """Build every variant of ``model``, run it once, and return its operations, None if unknown."""
    if args.memory_format:
        ConvMLP.channels_last = args.memory_format == 'channels_last'
    make = backbone_variants if model in ARCHS else whole_model_variants
    variants = {**make(model, args, shape), **timm_variants(args)}
    x = torch.randn(args.batch, 3, *shape, device=args.device)
    flops = {}
    for name, call in variants.items():
        function = forward(call, args)
        built[name] = function, x
        if flops and (name.split(' ')[0] in ARCHS or name.endswith((' fused', *RUNTIMES))):
            # The same work as of the variant before, with the same backbone, in other operators.
            other = 'ResNet-50' in name
            flops[name] = [count for n, count in flops.items() if ('ResNet-50' in n) == other][-1]
            function(x)
        else:
            with FlopCounterMode(display=False) as counter:
                function(x)
            flops[name] = counter.get_total_flops()
    # Square products of about the work of a layer, in the precision of the networks; several, as a
    # turn of the networks lasts long, too.
    n, repeat = 8192 if args.device.startswith('cuda') else 1536, 8
    matrix = torch.randn(n, n, device=args.device, dtype=DTYPES[args.dtype])
    product = torch.empty_like(matrix)
    built[MATRIX] = lambda m: [torch.mm(m, m, out=product) for _ in range(repeat)], matrix
    return {**flops, MATRIX: repeat * 2 * n**3}


def seconds(name):
    function, x = built[name]
    synchronize = torch.cuda.synchronize if x.is_cuda else lambda: None
    synchronize()
    start = time.perf_counter()
    function(x)
    synchronize()
    return time.perf_counter() - start


def peak_memory(name):
    """Of the GPU, or resident in this process: in MB, above what was held before."""
    function, x = built[name]
    if x.is_cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function(x)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path('/proc/self/clear_refs').write_text('5')  # Linux forgets the peak
    before = resident('VmRSS')
    function(x)
    return (resident('VmHWM') - before) / 2**20


def end_with_parent():
    """Have Linux end this process when the one that started it ends, in whatever way."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    """The variants of a model in a process of their own, in which ``allocation()`` comes first."""

    def __init__(self, model, args, shape, allocation=time.time):
        self.executor = ProcessPoolExecutor(
            1, multiprocessing.get_context('spawn'), initializer=end_with_parent
        )
        self.executor.submit(allocation)
        self.building = self.executor.submit(build, model, args, shape)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.executor.shutdown(cancel_futures=True)

    @property
    def flops(self):
        """``{name: floating-point operations}`` of the variants and of the matrix products."""
        return self.building.result()

    def call(self, function, name):
        return self.executor.submit(function, name).result()
