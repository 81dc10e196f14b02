_base_ = ['runtime.py']

default_scope = 'mmseg'
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=4000, save_best='mIoU'),
    visualization=dict(type='SegVisualizationHook'),
)
tta_model = dict(type='SegTTAModel')
log_processor = dict(by_epoch=False)
visualizer = dict(
    type='SegLocalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')]
)
