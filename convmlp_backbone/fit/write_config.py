"""An ordinary config of what was derived, with why each value was taken."""

import colorsys
import json
import textwrap
from pathlib import Path

from ..checkpoints import NORMALISATION
from ..config import shipped_configs
from ..files import whole_file
from . import mask_images
from .derive import Plan
from .found import Found

SCOPES = dict(boxes='mmdet', masks='mmdet', semantic='mmseg', classes='mmpretrain')
MODELS = dict(
    boxes='retinanet_fpn',
    masks='maskrcnn_fpn',
    semantic='semantic_fpn',
    classes='convmlp_classifier',
)
METRICS = dict(
    boxes='coco/bbox_mAP', masks='coco/segm_mAP', semantic='mIoU', classes='accuracy/top1'
)


def write_data(found: Found, folder: Path) -> None:
    """The annotation files that the config names: COCO's, or lists of images."""
    for split, part in found.splits.items():
        if found.task in ('boxes', 'masks'):
            # Of a few that have no mask, one could not learn masks.
            objects = [
                a for a in part['annotations'] if found.task == 'boxes' or 'segmentation' in a
            ]
            text = json.dumps(
                dict(
                    images=part['images'],
                    annotations=[
                        dict(a, id=number, category_id=a['category_id'] + 1)
                        for number, a in enumerate(objects, 1)
                    ],
                    categories=[
                        dict(id=i, name=name, supercategory='none')
                        for i, name in enumerate(found.names, 1)
                    ],
                )
            )
        elif found.task == 'semantic':
            text = ''.join(f'{image}\n' for image, _ in part)
        else:
            text = ''.join(f'{image} {label}\n' for image, label in part)
        suffix = 'json' if found.task in ('boxes', 'masks') else 'txt'
        with whole_file(folder / f'{split}.{suffix}') as file:
            file.write_text(text)
    if found.task == 'semantic':
        mask_images.write_maps(found, folder / 'maps')


def palette(count: int) -> list[tuple[int, ...]]:
    """Colours that differ in hue by the golden ratio."""
    return [
        tuple(round(255 * v) for v in colorsys.hsv_to_rgb(i * 0.618 % 1, 0.75, 0.9))
        for i in range(count)
    ]


def tuple_lines(name: str, items: list) -> str:
    """``name=(a, b)``, over several lines of a config where need be."""
    lines = ['    ' + f'{name}=(']
    for item in items:
        word = f'{item!r}, '
        if len(lines[-1]) + len(word) > 100:
            lines.append(' ' * 8)
        lines[-1] += word
    lines[-1] = lines[-1] if len(items) == 1 else lines[-1].removesuffix(', ')
    return '\n'.join(line.rstrip() if line is not lines[-1] else line for line in lines) + ')'


def comment(plan: Plan, *names: str, indent: int = 0) -> str:
    """The reasons for values as lines of comment."""
    text = '. '.join(
        plan.why[name][:1].upper() + plan.why[name][1:] for name in names if plan.why.get(name)
    )
    start = ' ' * indent + '# '
    return ''.join(
        f'{line}\n'
        for line in textwrap.wrap(
            text and text + '.',
            99,
            initial_indent=start,
            subsequent_indent=start,
            break_on_hyphens=False,  # of addresses
        )
    )


def write_config(found: Found, plan: Plan, folder: Path) -> Path:
    """``folder/config.py``; what it names lies in ``folder/data``."""
    bases = next(iter(shipped_configs().values())).parent / '_base_'
    counts = ' + '.join(str(len(found.images(split))) for split in found.splits)
    plural = 'class' if len(found.names) == 1 else 'classes'
    suffix = 'json' if found.task in ('boxes', 'masks') else 'txt'
    data = folder.resolve() / 'data'
    names = (
        f'metainfo = dict(\n{tuple_lines("classes", found.names)},\n'
        f'{tuple_lines("palette", palette(len(found.names)))})'
    )
    text = f'''"""{found.root.name}, {found.layout}: {counts} images ({', '.join(found.splits)}), \
{len(found.names)} {plural}; {found.task}.

Written by convmlp fit, to be read and edited: convmlp train {folder}/config.py
"""
_base_ = [
    {str(bases / f'{MODELS[found.task]}.py')!r},
    {str(bases / f'{SCOPES[found.task]}_runtime.py')!r}]

# Beside this file, which MMEngine would overwrite with the config it has read.
work_dir = {str(folder.resolve() / 'train')!r}
data_root = {str(found.root.resolve())!r}
'''
    for split in found.splits:
        text += f'{split}_file = {str(data / f"{split}.{suffix}")!r}\n'
    text += names + '\n\n'
    text += dict(semantic=semantic, classes=classes).get(found.task, detection)(found, plan, data)
    text += schedule(found, plan)
    with whole_file(folder / 'config.py') as file:
        file.write_text(text)
    return folder / 'config.py'


def loaders(found: Found, plan: Plan, dataset: str, files: str, batch: int, evaluator: str) -> str:
    """Data loaders of all splits.

    Args:
        dataset: The arguments that all data sets have.
        files: That which is another one for each split, with ``{split}`` in it.
        batch: Images of a batch in validation.
    """

    def one(split, role, size, shuffle):
        extra = ', test_mode=True' if role != 'train' and dataset.startswith("type='CocoD") else ''
        sampler = 'InfiniteSampler' if role == 'train' else 'DefaultSampler'
        pipeline = 'train_pipeline' if role == 'train' else 'test_pipeline'
        return f"""{role}_dataloader = dict(
    batch_size={size},
    num_workers={plan['workers']},
    persistent_workers=True,
    sampler=dict(type='{sampler}', shuffle={shuffle}),
    dataset=dict(
        {dataset},
        {files.format(split=split)}, pipeline={pipeline}{extra}))
"""

    test = 'test' if 'test' in found.splits else 'val'
    text = comment(plan, 'batch') + one('train', 'train', plan['batch'], True)
    text += comment(plan, 'val') + one('val', 'val', batch, False)
    text += (
        'test_dataloader = val_dataloader\n' if test == 'val' else one('test', 'test', batch, False)
    )
    text += f'val_evaluator = dict({evaluator.format(split="val")})\n'
    return text + (
        'test_evaluator = val_evaluator\n'
        if test == 'val'
        else f'test_evaluator = dict({evaluator.format(split="test")})\n'
    )


def backbone(plan: Plan, more: str = '') -> str:
    weights = (
        f",\n        init_cfg=dict(type='Pretrained', checkpoint={plan['backbone']!r})"
        if plan['backbone']
        else ''
    )
    return f"backbone=dict(type='ConvMLP', arch='s'{more}{weights})"


def flips(plan: Plan) -> str:
    return (
        "dict(type='RandomFlip', prob=[0.25, 0.25, 0.25],\n         direction=['horizontal', "
        "'vertical', 'diagonal'])"
        if plan['flip'] == 'all'
        else "dict(type='RandomFlip', prob=0.5)"
    )


def test_resize(plan: Plan) -> str:
    if plan['factor']:
        factor = round(float(plan['factor']), 4)
        return f"dict(type='Resize', scale_factor={factor}, keep_ratio=True)"
    return f"dict(type='Resize', scale={plan['scale']}, keep_ratio=True)"


def detection(found: Found, plan: Plan, data: Path) -> str:
    masks = found.task == 'masks'
    load = "dict(type='LoadAnnotations', with_bbox=True" + (', with_mask=True)' if masks else ')')
    crop = (
        comment(plan, 'crop', indent=4)
        + f"    dict(type='RandomCrop', crop_size=({plan['crop']}, {plan['crop']})),\n"
        if plan['crop']
        else ''
    )
    ratios = plan['ratios']
    if masks:
        head = f"""    rpn_head=dict(anchor_generator=dict(
        scales=[{plan['anchors']}], ratios={ratios})),
    roi_head=dict(
        bbox_head=dict(num_classes={len(found.names)}),
        mask_head=dict(num_classes={len(found.names)})),
"""
        if plan['device'] == 'cpu':
            head += f"""    # 512 regions an image would take ten times as long as all the rest.
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img={plan['regions']}),
        rcnn=dict(sampler=dict(num={plan['samples']}))),
    test_cfg=dict(
        rpn=dict(nms_pre=500, max_per_img={plan['regions']}),
        rcnn=dict(max_per_img={plan['most']})))
"""
        else:
            head += f'    test_cfg=dict(rcnn=dict(max_per_img={plan["most"]})))\n'
    else:
        head = f"""    bbox_head=dict(
        num_classes={len(found.names)},
        anchor_generator=dict(octave_base_scale={plan['anchors']}, ratios={ratios})),
    test_cfg=dict(max_per_img={plan['most']}))
"""
    return f"""{comment(plan, 'anchors', 'most')}model = dict(
    {backbone(plan)},
    neck=dict(in_channels=[64, 128, 256, 512]),
{head}
train_pipeline = [
    dict(type='LoadImageFromFile'),
    {load},
{comment(plan, 'scale', indent=4)}    dict(type='RandomResize', scale={plan['scale']}, \
ratio_range=(0.75, 1.3), keep_ratio=True),
{crop}{comment(plan, 'flip', indent=4)}    {flips(plan)},
    dict(type='PackDetInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
{comment(plan, 'factor', indent=4)}    {test_resize(plan)},
    {load},
    dict(type='PackDetInputs',
         meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
""" + loaders(
        found,
        plan,
        "type='CocoDataset', data_root=data_root, metainfo=metainfo,\n"
        "        data_prefix=dict(img='')",
        'ann_file={split}_file',
        1,
        "type='CocoMetric', ann_file={split}_file, metric="
        + ("['bbox', 'segm']" if masks else "'bbox'"),
    )


def semantic(found: Found, plan: Plan, data: Path) -> str:
    size = plan['crop']
    return f"""maps = {str(data / 'maps')!r}
model = dict(
    data_preprocessor=dict(size=({size}, {size})),
    {backbone(plan)},
    neck=dict(in_channels=[64, 128, 256, 512]),
    decode_head=dict(num_classes={len(found.names)}))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
{comment(plan, 'scale', indent=4)}    dict(type='RandomResize', scale={plan['scale']}, \
ratio_range=(0.75, 1.3), keep_ratio=True),
{comment(plan, 'crop', indent=4)}    dict(type='RandomCrop', crop_size=({size}, {size})),
{comment(plan, 'flip', indent=4)}    {flips(plan)},
    dict(type='PackSegInputs')]
test_pipeline = [
    dict(type='LoadImageFromFile'),
{comment(plan, 'factor', indent=4)}    {test_resize(plan)},
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')]
""" + loaders(
        found,
        plan,
        "type='BaseSegDataset', data_root=data_root, metainfo=metainfo,\n        "
        "img_suffix='', seg_map_suffix='.png',\n        "
        "data_prefix=dict(img_path='', seg_map_path=maps)",
        'ann_file={split}_file',
        1,
        "type='IoUMetric', iou_metrics=['mIoU']",
    )


def classes(found: Found, plan: Plan, data: Path) -> str:
    size = plan['size']
    return f"""# Without mixing of images: it asks for hundreds of epochs.
model = dict(
    {backbone(plan, ', drop_path_rate=0.')},
    head=dict(num_classes={len(found.names)}),
    train_cfg=None)
data_preprocessor = dict(
    num_classes={len(found.names)}, mean={NORMALISATION['mean']}, std={NORMALISATION['std']},
    to_rgb=True)

{comment(plan, 'size')}train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale={size}, crop_ratio_range=(0.6, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs')]
# The whole image, however long.
test_pipeline = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=({size}, {size})),
    dict(type='PackInputs')]
""" + loaders(
        found,
        plan,
        "type='CustomDataset', data_root=data_root, metainfo=metainfo,\n        data_prefix=''",
        'ann_file={split}_file',
        32,
        "type='Accuracy', topk=(1, )",
    )


def schedule(found: Found, plan: Plan) -> str:
    number, warm_up = plan['iterations'], plan['warm_up']
    decay = '0.05' if found.task == 'classes' else '1e-4'
    interval = number // plan['evaluations']
    log = max(1, min(50, number // 20))
    norm = (
        ',\n    paramwise_cfg=dict(bias_decay_mult=0., flat_decay_mult=0.)'
        if found.task == 'classes'
        else ''
    )
    load = (
        f'{comment(plan, "load_from")}load_from = {plan["load_from"]!r}\n'
        if plan['load_from']
        else ''
    )
    wrapper = ', '.join(f'{key}={value!r}' for key, value in plan['precision'].items())
    return f"""
{load}{comment(plan, 'lr', 'precision')}optim_wrapper = dict(
    {wrapper},
    optimizer=dict(type='AdamW', lr={plan['lr']:g}, weight_decay={decay}),
    clip_grad=dict(max_norm={5 if found.task == 'classes' else 10}){norm})
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end={warm_up}),
    dict(type='CosineAnnealingLR', T_max={number - warm_up}, by_epoch=False, begin={warm_up}, \
end={number})]
{comment(plan, 'iterations')}train_cfg = dict(
    type='IterBasedTrainLoop', max_iters={number}, val_interval={interval})
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(
    logger=dict(interval={log}),
    checkpoint=dict(by_epoch=False, interval={interval}, max_keep_ckpts=1,
                    save_best={METRICS[found.task]!r}, rule='greater'))
{comment(plan, 'patience')}custom_hooks = [dict(
    type='EarlyStoppingHook', monitor={METRICS[found.task]!r}, rule='greater', min_delta=0.001,
    patience={plan['patience']})]
log_processor = dict(by_epoch=False, window_size={log})
randomness = dict(seed=0)
"""
