"""Models of other frameworks with ConvMLP from timm under them, for heads.py.

Each is ``(model, loss, predict)``: ``loss(model, images, boxes)`` of images (2, 3, H, W) in 0..1
with the same boxes (2, 4) in pixels, ``predict(model, images)``.
"""

from collections import OrderedDict

import timm
import torch
from torch import nn
from torch.nn import functional as F

import convmlp_backbone.timm_models  # noqa: F401  registers convmlp_s and so on


def detr(kind):
    import transformers

    shared = dict(
        backbone_config=transformers.TimmBackboneConfig(
            backbone='convmlp_s',
            out_indices=[1, 2, 3] if kind == 'RTDetr' else [3],
            use_pretrained_backbone=False,
        ),
        num_queries=20,
        num_labels=4,
    )
    if kind == 'RTDetr':
        shared.update(encoder_in_channels=[128, 256, 512], decoder_layers=2, num_denoising=4)
    else:
        shared.update(encoder_layers=1, decoder_layers=2, auxiliary_loss=True)
    config = getattr(transformers, f'{kind}Config')(**shared)
    model = getattr(transformers, f'{kind}ForObjectDetection')(config)

    def loss(model, images, boxes):
        scale = boxes.new_tensor([images.shape[3], images.shape[2]] * 2)
        corners = boxes / scale
        centres = torch.cat(
            [(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1
        )
        labels = [dict(class_labels=torch.tensor([0, 1]), boxes=centres) for _ in images]
        return model(pixel_values=images, labels=labels).loss

    return model, loss, lambda model, images: model(pixel_values=padded(images)).pred_boxes


def padded(images):
    """RT-DETR and segmentation_models.pytorch refuse what 32 does not divide, of any network."""
    return F.pad(images, (0, -images.shape[3] % 32, 0, -images.shape[2] % 32))


def segmentor(kind):
    import segmentation_models_pytorch as smp

    model = getattr(smp, kind)('tu-convmlp_s', encoder_weights=None, classes=3)

    def loss(model, images, boxes):
        target = torch.zeros(len(images), *images.shape[2:], dtype=torch.long)
        for n, (x1, y1, x2, y2) in enumerate(boxes.int().tolist()):
            target[:, y1:y2, x1:x2] = n + 1
        return F.cross_entropy(model(images), target)

    return model, loss, lambda model, images: model(padded(images))


class Pyramid(nn.Module):
    """ConvMLP with an FPN, as torchvision's detectors take it."""

    def __init__(self):
        super().__init__()
        from torchvision.ops import FeaturePyramidNetwork

        self.body = timm.create_model('convmlp_s', features_only=True)
        self.out_channels = 64
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), 64)

    def forward(self, x):
        return self.fpn(OrderedDict((str(i), level) for i, level in enumerate(self.body(x))))


def torchvision_detector(kind):
    from torchvision.models import detection
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    ratios = (1.0,) if kind == 'FCOS' else (0.5, 1.0, 2.0)
    anchors = AnchorGenerator(tuple((s,) for s in (8, 16, 32, 64)), (ratios,) * 4)
    rcnn = 'RCNN' in kind
    model = getattr(detection, kind)(
        Pyramid(),
        num_classes=3,
        min_size=64,
        max_size=128,
        **{'rpn_anchor_generator' if rcnn else 'anchor_generator': anchors},
        **(dict(box_batch_size_per_image=32, rpn_post_nms_top_n_train=50) if rcnn else {}),
    )

    def loss(model, images, boxes):
        masks = torch.zeros(2, *images.shape[2:], dtype=torch.uint8)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        target = dict(boxes=boxes, labels=torch.tensor([1, 2]), masks=masks)
        return sum(model(list(images), [dict(target) for _ in images]).values())

    return model, loss, lambda model, images: model(list(images))


def lightning(kind):
    import lightning

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = timm.create_model('convmlp_s', num_classes=4)
            self.losses = []

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, _):
            loss = F.cross_entropy(self(batch[0]), batch[1])
            self.losses.append(loss.item())
            return loss

        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), lr=1e-4)

    model = Module()
    labels = torch.arange(2)
    data = torch.utils.data.TensorDataset(
        torch.rand(2, 3, 64, 96) + labels.view(2, 1, 1, 1), labels
    )
    trainer = lightning.Trainer(
        max_epochs=8,
        accelerator='cpu',
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=2))
    if not model.losses[-1] < model.losses[0]:
        raise RuntimeError(f'losses of Lightning: {model.losses}')

    def loss(model, images, boxes):
        return F.cross_entropy(model(images + labels.view(2, 1, 1, 1)), labels)

    return model, loss, lambda model, images: model(images)


ELSEWHERE = {
    'transformers': detr,
    'segmentation_models_pytorch': segmentor,
    'torchvision': torchvision_detector,
    'lightning': lightning,
}
