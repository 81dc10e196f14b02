"""Make a checkpoint ready to be given away: ``tools/publish_model.py IN OUT.pth``.

Writes OUT-XXXXXXXX.pth with the weights, of their moving average if there is one, and the class
names, and nothing that tells of the machine it was trained on; XXXXXXXX begins its SHA-256.
"""
import argparse

from common import one_line_errors

from convmlp_backbone.checkpoints import CheckpointError, describe, load, plain_meta, unwrap, write


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='IN', help='path or URL of a checkpoint')
    parser.add_argument('target', metavar='OUT', help='name.pth or name.safetensors')
    parser.add_argument('--trust', action='store_true', help='run the code that IN holds, if any')
    args = parser.parse_args()

    checkpoint = load(args.source, args.trust)
    wrapper, state_dict = unwrap(checkpoint)
    if not state_dict:
        raise CheckpointError(f'{args.source} holds no weights')
    path, sha256 = write(args.target, state_dict, plain_meta(checkpoint), name_hash=True)
    print(f'wrote {path}: {describe(state_dict)}\n'
          f'{path.stat().st_size} bytes, SHA-256 {sha256}')


if __name__ == '__main__':
    with one_line_errors():
        main()
