"""``convmlp train`` of this clone, or of the installed package: for the launchers and for mim."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from convmlp_cli import main  # noqa: E402

if __name__ == '__main__':
    main(['train', *sys.argv[1:]])
