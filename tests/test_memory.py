"""What the C library does with the memory of freed tensors."""
import platform
import subprocess
import sys

import pytest

ALLOCATE = '''
import resource, torch
from convmlp_backbone import keep_freed_memory
{}
for _ in range(20):  # the heap grows at first, where something small lies behind the large hole
    torch.ones(1 << 24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
'''


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='for glibc only')
def test_keep_freed_memory():
    """Of four times 64 MB, no page is asked of Linux again."""
    faults = [int(subprocess.check_output([sys.executable, '-c', ALLOCATE.format(call)]))
              for call in ('', 'keep_freed_memory()')]
    assert faults[0] > 100 and faults[1] < 10
