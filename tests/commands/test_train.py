"""tools/train.py and tools/test.py end to end, on real photographs made small."""

import pytest

SMALL = ['default_hooks.checkpoint.save_best=None', 'model.backbone.init_cfg=None']
RUNS = dict(
    retinanet_convmlp_s_fpn_1x_coco=(
        'coco_sample',
        [
            'train_dataloader.dataset.indices=4',
            'val_dataloader.dataset.indices=2',
            'test_dataloader.dataset.indices=2',
            'train_cfg.max_epochs=1',
            'train_dataloader.dataset.pipeline.2.scale=(208,128)',
            'val_dataloader.dataset.pipeline.1.scale=(208,128)',
        ],
    ),
    fpn_convmlp_s_512x512_40k_ade20k=(
        'ade_sample/ADEChallengeData2016',
        [
            'train_cfg.max_iters=2',
            'train_cfg.val_interval=2',
            'train_dataloader.num_workers=1',
            'train_dataloader.dataset.pipeline.2.scale=(256,64)',
            'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
            'model.data_preprocessor.size=(64,64)',
            'default_hooks.checkpoint.interval=2',
        ],
    ),
)
RUNS['maskrcnn_convmlp_s_fpn_1x_coco'] = (
    'coco_sample',
    [
        *RUNS['retinanet_convmlp_s_fpn_1x_coco'][1],
        'model.train_cfg.rcnn.sampler.num=16',
        'model.test_cfg.rcnn.score_thr=0',
    ],
)
# After two iterations no score is high, and COCO's metric wants something to measure.
RUNS['retinanet_convmlp_s_fpn_1x_coco'][1].append('model.test_cfg.score_thr=0')


@pytest.mark.parametrize('name', RUNS)
def test_shipped_config_on_real_files(name, run_tool, shared_data, tmp_path):
    folder, options = RUNS[name]
    common = [
        '--data-root',
        shared_data / folder,
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        *SMALL,
        *options,
    ]
    trained = run_tool('train.py', name, *common).stdout
    metric = 'mIoU' if name.startswith('fpn') else 'coco/bbox_mAP'
    assert 'loss: ' in trained and f'{metric}: ' in trained
    (checkpoint,) = (tmp_path / 'work').glob('*_[12].pth')

    tested = run_tool('test.py', name, checkpoint, *common).stdout
    figure = [
        line.split(f'{metric}: ')[1].split()[0]
        for line in (trained + tested).splitlines()
        if f'{metric}: ' in line
    ]
    assert len(figure) == 2 and figure[0] == figure[1]


def test_two_processes_resume_and_test(run_tool, coins, tmp_path):
    common = [
        '--data-root',
        coins,
        '--work-dir',
        tmp_path / 'work',
        '--cfg-options',
        'train_dataloader.dataset.indices=8',
        'train_dataloader.batch_size=2',
        'train_dataloader.dataset.pipeline.2.scale=(64,64)',
        'train_dataloader.dataset.pipeline.3.crop_size=(64,64)',
        'model.data_preprocessor.size=(64,64)',
        'train_cfg.max_epochs=2',
        'default_hooks.checkpoint.save_best=None',
        'default_hooks.checkpoint.max_keep_ckpts=2',
        'default_hooks.logger.interval=1',
    ]
    out = run_tool('dist_train.sh', 'fpn_convmlp_s_coins', 2, *common).stdout
    assert out.count('No GPU here: gloo, BN instead of SyncBN.') == 1
    assert '[2][2/2]' in out and 'mIoU: ' in out  # 8 images, 2 processes x 2: 2 iterations
    epoch_1, epoch_2 = sorted((tmp_path / 'work').glob('epoch_*.pth'))

    epoch_2.unlink()
    (tmp_path / 'work/last_checkpoint').write_text(str(epoch_1))
    out = run_tool('train.py', 'fpn_convmlp_s_coins', '--resume', *common).stdout
    assert 'resumed epoch: 1' in out and epoch_2.exists()

    out = run_tool('dist_test.sh', 'fpn_convmlp_s_coins', epoch_2, 2, *common).stdout
    assert 'mIoU: ' in out


@pytest.mark.parametrize(
    'tool, arguments, expected',
    [
        ('train.py', ['no_such_config.py'], 'no config no_such_config.py'),
        ('train.py', ['retinanet_convmlp_s_fpn_1x_coco'], 'the train data set is not there'),
        ('train.py', ['retinanet_convmlp_s_fpn_coins', '--amp', 'fp16'], '--amp fp16: slower'),
        ('train.py', ['retinanet_convmlp_s_fpn_coins', '--resume', 'no.pth'], 'no.pth'),
        ('test.py', ['retinanet_convmlp_s_fpn_coins', 'no.pth'], 'no.pth'),
    ],
    ids=lambda value: value if isinstance(value, str) and ' ' in value else '',
)
def test_errors_are_one_line(tool, arguments, expected, run_tool, coins):
    data = [] if 'coco' in arguments[0] else ['--data-root', coins]
    done = run_tool(tool, *arguments, *data, check=False)
    assert done.returncode == 1
    lines = [line for line in done.stdout.splitlines() if 'Warning' not in line]
    assert lines[-1].startswith('error: ') and expected in lines[-1]
    assert 'Traceback' not in done.stdout


def test_unreachable_download_is_one_line(run_tool, coins, tmp_path):
    done = run_tool(
        'train.py',
        'retinanet_convmlp_s_fpn_coins',
        '--data-root',
        coins,
        '--cfg-options',
        'model.backbone.init_cfg.type=Pretrained',
        'model.backbone.init_cfg.checkpoint=convmlp://convmlp_s_imagenet.pth',
        env=dict(TORCH_HOME=str(tmp_path), https_proxy='http://127.0.0.1:9'),
        check=False,
    )
    assert done.returncode == 1 and 'Traceback' not in done.stdout
    error = done.stdout.splitlines()[-1]
    for part in (
        'error: ',
        'convmlp_s_imagenet.pth',
        'CONVMLP_CHECKPOINTS',
        'model.backbone.init_cfg=None',
    ):
        assert part in error
