"""What the C library does with the memory of freed tensors."""

import platform
import subprocess
import sys

import pytest

ALLOCATE = """
import resource, torch
from convmlp_backbone import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

default = page_faults()
keep_freed_memory()
for _ in range(5):  # the heap grows at first, where something small lies behind the large hole
    page_faults()
print(default, page_faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='for glibc only')
def test_keep_freed_memory():
    """Of four times 64 MB, no page is asked of Linux again."""
    default, kept = map(int, subprocess.check_output([sys.executable, '-c', ALLOCATE]).split())
    assert default > 100 and kept < 10
