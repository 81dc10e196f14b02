"""A model by name, for the tools that look at models: a size of ConvMLP, a timm model, a config."""
from common import UserError, find_config, fit_model_to_cpu
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from convmlp_backbone import ConvMLP
from convmlp_backbone.archs import ABLATIONS, ARCHS, NAMES


def build_model(name, pretrained=False):
    """A model, in evaluation mode.

    Args:
        name (str): One of ``NAMES`` in :mod:`convmlp_backbone.archs` for a backbone, such as
            ``'s'`` or ``'m-pure-mlp'``; the name of a timm model; the path of a config or the name
            of a shipped one.
        pretrained (bool): With timm's weights, if it is a model of timm; otherwise random ones.

    Returns:
        tuple[nn.Module, tuple[int, int]]: The model and the height and width of the image that its
        cost is usually given for.

    Raises:
        UserError: There is no such model, or its weights cannot be had.
    """
    if name in NAMES:
        size, _, part = name.partition('-')
        return ConvMLP({**ARCHS[size], **ABLATIONS.get(part, {})}).eval(), (224, 224)
    try:
        import timm

        import convmlp_backbone.timm_models  # noqa: F401  registers convmlp_s and so on
        if timm.is_model(name):
            model = timm.create_model(name, pretrained=pretrained).eval()
            return model, model.default_cfg['input_size'][1:]
    except ImportError:
        pass
    except OSError as error:
        raise UserError(f'{name}: {str(error).splitlines()[0]}') from None
    try:
        cfg = Config.fromfile(find_config(name))
    except UserError as error:
        raise UserError(f'{name} is no timm model, none of {", ".join(NAMES[:5])} (or m, l), and '
                        f'{error}') from None
    return build_from_config(cfg), {'mmdet': (800, 1280), 'mmseg': (512, 512)}.get(
        cfg.get('default_scope'), (224, 224))


def image_shape(numbers):
    """Height and width from the numbers after ``--shape``: both, or one for both."""
    shape = tuple(numbers * 2 if len(numbers) == 1 else numbers)
    if len(shape) != 2 or min(shape) < 1:
        raise UserError(f'--shape {" ".join(map(str, numbers))}: expected height and width, or one '
                        'number for both, in pixels')
    return shape


def build_from_config(cfg, device='cpu'):
    """The model of a config on ``device``, in evaluation mode; nothing is downloaded."""
    init_default_scope(cfg.get('default_scope', 'mmengine'))
    if device == 'cpu':
        fit_model_to_cpu(cfg.model)
    cfg.model.setdefault('data_preprocessor', cfg.get('data_preprocessor'))
    return MODELS.build(cfg.model).to(device).eval()
