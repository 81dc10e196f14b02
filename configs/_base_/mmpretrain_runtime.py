_base_ = ['runtime.py']

custom_imports = dict(imports=['convmlp_backbone', 'convmlp_backbone.mmpretrain_models'])
default_scope = 'mmpretrain'
default_hooks = dict(visualization=dict(type='VisualizationHook'))
visualizer = dict(
    type='UniversalVisualizer', name='visualizer', vis_backends=[dict(type='LocalVisBackend')]
)
