_base_ = [
    '_base_/maskrcnn_fpn.py',
    '_base_/coins_detection.py',
    '_base_/schedule_coins.py',
    '_base_/mmdet_runtime.py',
]

model = dict(
    backbone=dict(type='ConvMLP', arch='s'),
    neck=dict(in_channels=[64, 128, 256, 512]),
    roi_head=dict(bbox_head=dict(num_classes=1), mask_head=dict(num_classes=1)),
    # On a CPU the heads of 512 regions an image would take ten times as long as all the rest.
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=100), rcnn=dict(sampler=dict(num=32))
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=100)),
)
val_evaluator = dict(metric=['bbox', 'segm'])
test_evaluator = val_evaluator
default_hooks = dict(logger=dict(interval=8), checkpoint=dict(max_keep_ckpts=1))
log_processor = dict(window_size=8)
