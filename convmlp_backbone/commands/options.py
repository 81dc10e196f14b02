"""The options that commands share, each described once."""

from argparse import Action, ArgumentParser, Namespace, _ActionsContainer
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

from ..amp import CHOICES
from ..errors import UserError
from ..processes import is_first_process
from ..runtime import PRECISIONS

FILE = dict(bash='_shtab_compgen_files', zsh='_files', tcsh='f')  # what a shell completes
FOLDER = dict(bash='_shtab_compgen_dirs', zsh='_files -/', tcsh='d')
CONFIG = dict(FILE, bash='_convmlp_configs')  # a file, or the name of a shipped one

OPTIONS: dict[str, dict[str, Any]] = {
    'config': dict(
        help='path of a config, the name of a shipped one, or mmdet::NAME of a toolbox',
        complete=CONFIG,
    ),
    'checkpoint': dict(help='path, URL or convmlp://NAME', complete=FILE),
    'image': dict(help='a photo', complete=FILE),
    'model': dict(metavar='MODEL', help='s, m, l, a config or one of timm', complete=CONFIG),
    'models': dict(nargs='+', metavar='MODEL[=CHECKPOINT]', help='see above', complete=CONFIG),
    '--amp': dict(
        nargs='?',
        const='on',
        choices=CHOICES,
        help='mixed precision: bf16, fp16, the '
        'one that suits this machine (--amp alone), or that, if any (auto)',
    ),
    '--backbone': dict(
        metavar='ARCH',
        help="put ConvMLP under a toolbox's own config: convmlp_s, convmlp_m, convmlp_l, or a JSON "
        'object; the config is a path or mmdet::NAME, mmseg::NAME, mmpretrain::NAME',
    ),
    '--calibrate': dict(
        metavar='CONFIG_OR_FOLDER',
        help="of int8: images of a config's training data, or of a folder (default: MODEL's)",
        complete=CONFIG,
    ),
    '--cfg-options': dict(
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='change entries of the config, such as train_cfg.max_epochs=24',
    ),
    '--data-root': dict(
        metavar='DIR', help="folder of the data set, instead of the config's", complete=FOLDER
    ),
    '--device': dict(help='cpu, cuda:0, ... (default: the GPU if there is one)'),
    '--fuse': dict(
        action='store_true',
        help='fold the norms of the backbone and run its fused '
        'layers: the same predictions, sooner',
    ),
    '--json': dict(
        action='store_true',
        help='print the answer as JSON, for a program, and nothing else on the standard output',
    ),
    '--launcher': dict(
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes of a distributed job were started',
    ),
    # torch.distributed.launch of old passes it; torchrun sets the variable instead.
    '--local_rank': dict(type=int, default=0, help='of torch.distributed.launch'),
    '--no-check': dict(action='store_true', help='do not check config and data first'),
    '--out': dict(
        type=Path, metavar='FILE.png', help='the picture (default: %(default)s)', complete=FILE
    ),
    '--out-dir': dict(
        metavar='DIR', help='folder for the results (default: %(default)s)', complete=FOLDER
    ),
    '--precision': dict(
        choices=PRECISIONS,
        help='bf16: bfloat16, sooner on a processor with units for it; auto: bf16 there, else f32; '
        "int8: exported files only (default: a file's own, f32 of a checkpoint)",
    ),
    '--shape': dict(
        nargs='+',
        type=int,
        metavar='N',
        help='height and width of the image in pixels, or one number for both',
    ),
    '--trust': dict(
        action='store_true',
        help='run the code that checkpoints hold, if any (default: refuse such files)',
    ),
    '--work-dir': dict(
        metavar='DIR',
        help='folder for logs and checkpoints (default: work_dirs/NAME_OF_THE_CONFIG)',
        complete=FOLDER,
    ),
}
JOB = (
    '--work-dir',
    '--data-root',
    '--backbone',
    '--cfg-options',
    '--launcher',
    '--local_rank',
    '--trust',
    '--no-check',
)


def complete(argument: Action, by: dict[str, str]) -> None:
    """Let a shell complete an argument by :data:`FILE`, :data:`FOLDER` or :data:`CONFIG`."""
    argument.complete = by  # type: ignore[attr-defined]  # which shtab reads


def add(parser: _ActionsContainer, *names: str, **changes: Any) -> None:
    """Add the options of these names, with what is said otherwise in one command."""
    for name in names:
        option = {**OPTIONS[name], **changes}
        by = option.pop('complete', None)
        argument = parser.add_argument(name, **option)
        if by:
            complete(argument, by)


def require_one_or_more(args: Namespace, *names: str) -> None:
    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f'--{name} {value}: expected 1 or more')


def tell_precision(args: Namespace, reason: str) -> None:
    """Say what ``--precision auto`` picked."""
    if args.precision == 'auto' and is_first_process():
        print(f'--precision auto: {reason}', flush=True)


def job(config: str | Path, **changes: Any) -> Namespace:
    """The arguments of a job on ``config`` without any option, but for ``changes``."""
    parser = ArgumentParser()
    add(parser, 'config', *JOB)
    return Namespace(**{**vars(parser.parse_args([str(config)])), **changes})
