"""Configs of the mm toolboxes: walking through them."""


def walk(cfg, path=''):
    """Every dict in a config, outermost first, with its path such as ``model.roi_head.bbox_head``.

    Args:
        cfg: A config, or any part of one.
        path (str): What stands before the paths.

    Yields:
        tuple[str, dict]: The dict itself, which may be changed.
    """
    if isinstance(cfg, dict):
        yield path, cfg
        items = list(cfg.items())
    elif isinstance(cfg, (list, tuple)):
        items = list(enumerate(cfg))
    else:
        return
    for key, value in items:
        yield from walk(value, f'{path}.{key}' if path else str(key))
