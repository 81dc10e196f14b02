"""Nuclei in micrographs: how to train on a COCO-format data set of one's own, docs/own_dataset.md.

280 iterations from scratch, without a GPU if need be.
"""

_base_ = ['retinanet_convmlp_s_fpn_coins.py']

# Half the nuclei are smaller than 14 pixels; enlarged twice, they fit anchors from 16 on.
model = dict(bbox_head=dict(num_classes=1, anchor_generator=dict(octave_base_scale=2)))

data_root = 'data/nuclei/'
data_source = 'nuclei as docs/own_dataset.md tells'
metainfo = dict(classes=('nucleus',), palette=[(0, 114, 178)])
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='RandomResize', scale=(512, 512), ratio_range=(0.8, 1.2), keep_ratio=True),
    # Two fifths of the image: as many iterations in less than half the time.
    dict(type='RandomCrop', crop_size=(320, 320)),
    dict(
        type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']
    ),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(512, 512), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val.json')
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=10))
log_processor = dict(window_size=10)
