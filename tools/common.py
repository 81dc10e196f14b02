"""What the tools share: reading a config, fitting it to the machine, errors of one line."""
import difflib
import errno
import os
import sys
from contextlib import contextmanager
from pathlib import Path

# A clone, or convmlp_backbone/.mim of an installed wheel.
ROOT = Path(__file__).resolve().parents[1]
if (ROOT / 'convmlp_backbone').is_dir():
    sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
from mmengine.config import Config, DictAction  # noqa: E402
from mmengine.device import get_device  # noqa: E402

from convmlp_backbone.checks.model import check_model  # noqa: E402
from convmlp_backbone.errors import UserError  # noqa: E402


@contextmanager
def one_line_errors():
    """End the program with one line instead of a traceback where the user can mend the cause."""
    try:
        yield
    except UserError as error:
        sys.exit(f'error: {error}')
    except OSError as error:
        if not (isinstance(error, FileNotFoundError)
                or error.errno in (errno.ENOSPC, errno.EDQUOT)):
            raise
        sys.exit(f'error: {str(error).splitlines()[-1]}')


def add_config_arguments(parser):
    """The arguments that train.py and test.py have in common."""
    parser.add_argument('--work-dir', help='folder for logs and checkpoints '
                        '(default: work_dirs/NAME_OF_THE_CONFIG)')
    parser.add_argument('--data-root', help='folder of the data set, instead of the config\'s')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE',
                        help='change entries of the config, such as train_cfg.max_epochs=24')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none',
                        help='how the processes of a distributed job were started')
    parser.add_argument('--trust', action='store_true', help='run the code that checkpoints hold, '
                        'if any (default: refuse such files)')
    # torch.distributed.launch of old passes it; torchrun sets the variable instead.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0)


def load_config(args, splits):
    """The config that the command line asks for, checked and fitted to this machine.

    Args:
        args (Namespace): ``config`` and the arguments of :func:`add_config_arguments`.
        splits (Sequence[str]): The parts of the data set the job will read, such as ``'train'``.
    """
    from convmlp_backbone.checkpoints import enable_safe_loading
    enable_safe_loading(args.trust)
    cfg = read_config(args.config, args.cfg_options)
    if args.data_root:
        set_data_root(cfg, args.data_root)
    check_model(cfg, fail)
    check_data(cfg, splits)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    cfg.launcher = args.launcher
    cfg.work_dir = args.work_dir or cfg.get('work_dir') or str(
        Path('work_dirs', Path(args.config).stem))
    if get_device() == 'cpu':
        fit_to_cpu(cfg)
    return cfg


def fail(message):
    raise UserError(message)


def read_config(name, options=None):
    """The config that ``name`` stands for, changed by the command line's ``options``."""
    path = find_config(name)
    try:
        cfg = Config.fromfile(path)
        cfg.merge_from_dict(options or {})
    except Exception as error:  # a config is a program: it can raise anything
        raise UserError(f'{path} cannot be read, or not with these --cfg-options: '
                        f'{type(error).__name__}: {" ".join(str(error).split())}') from error
    return cfg


def find_config(name):
    """The path of a config: as given, or else a shipped one of that name, ``.py`` optional."""
    if Path(name).is_file():
        return name
    shipped = {path.stem: path for path in (ROOT / 'configs').glob('*.py')}
    if Path(name).stem in shipped:
        return str(shipped[Path(name).stem])
    near = difflib.get_close_matches(Path(name).stem, shipped, n=3) or sorted(shipped)[:3]
    raise UserError(f'no config {name}; the shipped ones are in {ROOT / "configs"}, '
                    f'did you mean {" or ".join(near)}?')


def datasets(loader):
    """Every data set of a data loader's config, those inside wrappers too, that lies on a disk."""
    if isinstance(loader, dict):
        if 'data_root' in loader:
            yield loader
        loader = loader.values()
    if not isinstance(loader, (str, bytes)) and hasattr(loader, '__iter__'):
        for part in loader:
            yield from datasets(part)


def set_data_root(cfg, root):
    """Point every data set of ``cfg``, and the annotation files of its evaluators, at ``root``."""
    splits = ('train', 'val', 'test')
    old_roots = {dataset.data_root for split in splits
                 for dataset in datasets(cfg.get(f'{split}_dataloader'))}
    for split in splits:
        for dataset in datasets(cfg.get(f'{split}_dataloader')):
            dataset.data_root = root
        evaluators = cfg.get(f'{split}_evaluator') or []
        for evaluator in [evaluators] if isinstance(evaluators, dict) else evaluators:
            for key, value in evaluator.items():
                for old in old_roots:
                    if isinstance(value, str) and old and value.startswith(old):
                        evaluator[key] = os.path.join(root, value[len(old):].lstrip('/'))


def check_data(cfg, splits):
    """Raise where a data set that the job will read is not there."""
    for split in splits:
        for dataset in datasets(cfg.get(f'{split}_dataloader')):
            root = dataset.data_root or ''
            prefixes = dataset.get('data_prefix') or {}
            parts = [dataset.get('ann_file'),
                     *(prefixes.values() if isinstance(prefixes, dict) else [prefixes])]
            for path in [root, *(os.path.join(root, part) for part in parts if part)]:
                if '://' not in path and path and not os.path.exists(path):
                    source = cfg.get('data_source')
                    raise UserError(
                        f'the {split} data set is not there: {os.path.abspath(path)}. '
                        + (f'Get {source}. ' if source else '')
                        + 'If you have it elsewhere: --data-root DIR.')


def fit_to_cpu(cfg):
    """Let a config made for GPUs run well without one."""
    from convmlp_backbone import keep_freed_memory
    keep_freed_memory()
    changes = []
    if cfg.launcher != 'none':
        # MMEngine's own set-up picks a GPU for every process, and gives DDP its number.
        changes.append('gloo')
        if cfg.launcher == 'slurm':
            for name, slurm in (('RANK', 'PROCID'), ('WORLD_SIZE', 'NTASKS')):
                os.environ[name] = os.environ[f'SLURM_{slurm}']
        if not torch.distributed.is_initialized():
            torch.distributed.init_process_group('gloo')
        cfg.model_wrapper_cfg = dict(type='MMDistributedDataParallel', device_ids=None,
                                     broadcast_buffers=False)
    changes += fit_model_to_cpu(cfg.model)
    if changes and os.environ.get('RANK', '0') == '0':
        print(f'No GPU here: {", ".join(changes)}.', flush=True)


def fit_model_to_cpu(cfg):
    """Change what needs a GPU, or is slow without one, anywhere below ``cfg``, and return what."""
    changes = set()
    if isinstance(cfg, dict):
        if cfg.get('type') == 'SyncBN':
            cfg['type'] = 'BN'
            changes.add('BN instead of SyncBN')
        if (cfg.get('type') == 'RoIAlign' and cfg.get('pool_mode', 'avg') == 'avg'
                and not cfg.get('use_torchvision')):
            # The same numbers; on a CPU 4 times as fast forward and twice backward.
            cfg['use_torchvision'] = True
            changes.add("torchvision's RoIAlign")
        if (cfg.get('type') == 'nms' and 'split_thr' not in cfg
                and not cfg.get('class_agnostic')):  # which MMCV forgets where it splits
            # The same boxes; else MMCV compares even those of different levels and classes.
            cfg['split_thr'] = 1
            changes.add('NMS level by level, class by class')
        cfg = cfg.values()
    if isinstance(cfg, (list, tuple)) or not isinstance(cfg, str) and hasattr(cfg, '__iter__'):
        for part in list(cfg):
            changes.update(fit_model_to_cpu(part))
    return sorted(changes)


def check_checkpoint(path):
    """Raise where ``path`` is a local file that does not exist."""
    if '://' not in path and not os.path.isfile(path):
        raise UserError(f'no checkpoint {os.path.abspath(path)}; tools/train.py writes them to '
                        'its --work-dir')


def fuse_model(model):
    """Make a detector, segmentor or classifier with a ConvMLP faster at inference, in place.

    The backbone is fused, see :meth:`convmlp_backbone.ConvMLP.fuse`; on a CPU, neck and head
    compute channels last where they can.
    """
    from convmlp_backbone import ConvMLP
    backbones = [module for module in model.modules() if isinstance(module, ConvMLP)]
    if not backbones:
        raise UserError(f'--fuse: the {type(model).__name__} of this config has no ConvMLP')
    for backbone in backbones:
        backbone.eval().fuse()
    # MMCV's operators, such as RoIAlign, read any tensor as if it lay in memory as (N, C, H, W).
    if next(model.parameters()).device.type == 'cpu' and not any(
            type(module).__module__.startswith('mmcv.ops')
            and not getattr(module, 'use_torchvision', False) for module in model.modules()):
        model.to(memory_format=torch.channels_last)
