"""Which process of a job this is, by the environment of its launcher."""

import os

RANK = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}


def is_first_process() -> bool:
    """Whether this process, of which PyTorch need not know yet, is to speak for all."""
    return next((os.environ[name] for name in RANK.values() if name in os.environ), '0') == '0'
