"""Run by tests/test_distributed.py in every process of a distributed job: ``TASK --launcher L``."""

import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.distributed as dist
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn

from convmlp_backbone import ConvMLP

TINY = dict(channels=8, conv_blocks=1, dims=(8, 8, 8), mlp_blocks=(1, 1, 1), mlp_ratio=2)
STEPS, TOTAL_BATCH = 10, 4


class Images(torch.utils.data.Dataset):
    def __len__(self):
        return STEPS * TOTAL_BATCH

    def __getitem__(self, index):
        return dict(inputs=torch.randn(3, 32, 48) + index / 10)  # as random as augmentation is


class Model(BaseModel):
    """The backbone with a 1x1 convolution behind every level, as a neck has."""

    def __init__(self, **kwargs):
        super().__init__()
        self.backbone = ConvMLP(TINY, **kwargs)
        self.convs = nn.ModuleList(nn.Conv2d(c, 1, 1) for c in self.backbone.out_channels)

    def forward(self, inputs, mode='loss'):
        levels = self.backbone(inputs)
        return dict(
            loss=sum(
                (conv(level).float() - 1).square().mean()
                for conv, level in zip(self.convs, levels, strict=True)
            )
        )


def train(launcher, rank_to_kill=None, wrapper='OptimWrapper'):
    """Ten steps with all hooks; the losses, averaged over the processes, go to losses.json."""
    world_size = int(os.environ.get('WORLD_SIZE', 1))
    torch.manual_seed(0)
    runner = Runner(
        Model(norm_eval=True, drop_path_rate=0),
        'work',
        launcher=launcher,
        randomness=dict(seed=0),
        log_level='ERROR',
        cfg=dict(
            model_wrapper_cfg=dict(
                type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False
            )
        ),
        train_dataloader=dict(
            dataset=Images(),
            batch_size=TOTAL_BATCH // world_size,
            num_workers=1,
            sampler=dict(type='DefaultSampler', shuffle=True),
            collate_fn=dict(type='default_collate'),
        ),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=1),
        optim_wrapper=dict(type=wrapper, optimizer=dict(type='AdamW', lr=1e-3)),
        default_hooks=dict(
            checkpoint=dict(type='AtomicCheckpointHook'),
            resume=dict(type='ReproducibleResumeHook'),
            invalid_loss=dict(type='InvalidLossHook'),
        ),
    )
    losses, step = [], runner.model.train_step

    def recorded(*args, **kwargs):
        if len(losses) == 3 and runner.rank == rank_to_kill:
            os.kill(os.getpid(), signal.SIGKILL)
        terms = step(*args, **kwargs)
        loss = terms['loss'].detach().clone()
        if world_size > 1:
            dist.all_reduce(loss)
        losses.append(loss.item() / world_size)
        return terms

    runner.model.train_step = recorded
    runner.train()
    if runner.rank == 0:
        Path('losses.json').write_text(json.dumps(losses))


if __name__ == '__main__':
    torch.set_num_threads(1)
    task, launcher = sys.argv[1], sys.argv[-1]
    if launcher == 'pytorch':
        dist.init_process_group('gloo')  # MMEngine's own set-up picks a GPU for every process
    train(
        launcher,
        rank_to_kill=1 if task == 'kill' else None,
        wrapper='CPUAmpOptimWrapper' if task == 'amp' else 'OptimWrapper',
    )
