"""Write hashes.txt, the SHA-256 of every file that constraints.txt can install: ``lock.py``.

To be run after a change of a pin; needs uv, and asks the package index. Kept are the files for
Linux and the Pythons of setup_env.py, and the source of what has no wheel for each of them.
"""

import re
import subprocess
import tomllib

from setup_env import CONSTRAINTS, HASHES, NEWEST, OLDEST

MINORS = range(OLDEST[1], NEWEST[1] + 1)


def pythons(wheel):
    """The minor versions of Python, of ours, that a wheel's name allows on Linux."""
    tags = re.fullmatch(r'.*-(.+)-(.+)-(.+)\.whl', wheel).groups()
    python, abi, platform = (tag.split('.') for tag in tags)
    if not any(re.fullmatch(r'any|(many)?linux.*_(x86_64|aarch64)', p) for p in platform):
        return set()
    if 'none' in abi and 'py3' in python:
        return set(MINORS)
    exact = {m for m in MINORS if f'cp3{m}' in python and {f'cp3{m}', 'none'} & {*abi}}
    oldest = min((int(p[3:]) for p in python if p.startswith('cp3')), default=99)
    return exact | ({m for m in MINORS if oldest <= m} if 'abi3' in abi else set())


def main():
    lock = tomllib.loads(
        subprocess.check_output(
            [
                'uv',
                'pip',
                'compile',
                str(CONSTRAINTS),
                '--no-deps',
                '--universal',
                '--generate-hashes',
                '--quiet',
                '--python-version',
                f'3.{OLDEST[1]}',
                '--format',
                'pylock.toml',
            ],
            text=True,
        )
    )
    lines = []
    for package in lock['packages']:
        wheels = [w for w in package.get('wheels', ()) if pythons(w['url'].rpartition('/')[2])]
        covered = set().union(*(pythons(w['url'].rpartition('/')[2]) for w in wheels))
        files = wheels if covered == {*MINORS} else [*wheels, package['sdist']]
        lines.append(
            f'{package["name"]}=={package["version"]}'
            + ''.join(f' \\\n    --hash=sha256:{file["hashes"]["sha256"]}' for file in files)
        )
    HASHES.write_text(
        '# Written by tools/dev/lock.py from constraints.txt; not to be edited.\n'
        + '\n'.join(lines)
        + '\n'
    )


if __name__ == '__main__':
    main()
