"""Make a checkpoint ready to be given away.

  convmlp publish work_dirs/x/epoch_12.pth retinanet.pth

Writes OUT-XXXXXXXX.pth with the weights, of their moving average if there is one, and the class
names, and nothing that tells of the machine it was trained on; XXXXXXXX begins its SHA-256.
"""

from argparse import ArgumentParser, Namespace

from ..checkpoints import describe, load, plain_meta, unwrap, write
from . import options


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument('source', metavar='IN', help='path or URL of a checkpoint')
    parser.add_argument('target', metavar='OUT', help='name.pth or name.safetensors')
    options.add(parser, '--trust', '--json')


def run(args: Namespace) -> dict:
    checkpoint = load(args.source, args.trust)
    state_dict = unwrap(checkpoint)[1]
    path, sha256 = write(args.target, state_dict, plain_meta(checkpoint), name_hash=True)
    print(f'wrote {path}: {describe(state_dict)}\n{path.stat().st_size} bytes, SHA-256 {sha256}')
    return dict(path=str(path), bytes=path.stat().st_size, sha256=sha256)
