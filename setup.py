"""Carries configs and tools in the wheel, in the folder .mim where OpenMMLab's `mim` finds them."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithMim(build_py):
    def run(self):
        super().run()
        if self.editable_mode:
            return  # the clone itself holds them
        # Not the tools that need a clone, in tools/datasets and tools/dev.
        for folder in ('configs', 'tools'):
            shutil.copytree(
                folder,
                Path(self.build_lib, 'convmlp_backbone/.mim', folder),
                ignore=shutil.ignore_patterns('__pycache__', 'datasets', 'dev'),
                dirs_exist_ok=True,
            )
        shutil.copy('model-index.yml', Path(self.build_lib, 'convmlp_backbone/.mim'))


setup(cmdclass=dict(build_py=BuildWithMim))
