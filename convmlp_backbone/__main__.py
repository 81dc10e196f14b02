"""``python -m convmlp_backbone COMMAND``, the same as ``convmlp COMMAND``."""

from convmlp_cli import main

if __name__ == '__main__':
    main()
