"""The program ``convmlp``: a table of commands, each a file of convmlp_backbone/commands/.

It lies beside the package, since to import that takes seconds: PyTorch and MMEngine come with it.
"""

import argparse
import ast
import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path


def commands() -> dict[str, str]:
    """``{name: docstring}`` of the commands, the modules with a ``run``, none of them imported."""
    spec = find_spec('convmlp_backbone')
    assert spec and spec.submodule_search_locations  # it lies beside this file
    (package,) = spec.submodule_search_locations
    modules = {
        path.stem: ast.parse(path.read_text())
        for path in sorted(Path(package, 'commands').glob('*.py'))
    }
    return {
        name: ast.get_docstring(module) or ''
        for name, module in modules.items()
        if any(getattr(part, 'name', None) == 'run' for part in module.body)
    }


def make_parser(wanted: str | None = None) -> argparse.ArgumentParser:
    """The parser of the whole program, with the arguments of the command ``wanted``, or of all."""
    parser = argparse.ArgumentParser(
        prog='convmlp',
        description='Train, test and look at models with a ConvMLP backbone.',
        epilog='convmlp COMMAND --help tells more, with an example.',
    )
    parser.add_argument(
        '--print-completion',
        metavar='SHELL',
        help='print what makes bash, zsh or tcsh complete commands and options, and end',
    )
    table = parser.add_subparsers(dest='command', metavar='COMMAND', required=True)
    for name, text in commands().items():
        command = table.add_parser(
            name,
            help=text.split('\n')[0],
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if wanted in (name, None):
            module = import_module(f'convmlp_backbone.commands.{name}')
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser


def print_completion(shell: str) -> None:
    """Print the completion of a shell; the commands are imported for it."""
    from convmlp_backbone.errors import UserError

    try:
        import shtab
    except ImportError:
        raise UserError('--print-completion needs shtab: pip install shtab') from None
    if shell not in shtab.SUPPORTED_SHELLS:
        raise UserError(f'--print-completion {shell}: expected one of {shtab.SUPPORTED_SHELLS}')
    from convmlp_backbone.config import shipped_configs

    names = ' '.join(shipped_configs())
    print(
        shtab.complete(
            make_parser(),
            shell,
            preamble=dict(  # type: ignore[arg-type]  # a str, says shtab, which takes dicts too
                bash=f"""
_convmlp_configs() {{ compgen -W '{names}' -- "$1"; compgen -f -- "$1"; }}"""
            ),
        )
    )


def main(argv: Sequence[str | Path] | None = None) -> None:
    """Run the command that ``argv``, by default the command line, names."""
    words = list(map(str, sys.argv[1:] if argv is None else argv))
    name = next(iter(words), '')
    if name == '--print-completion' and len(words) > 1:
        from convmlp_backbone.errors import one_line_errors

        with one_line_errors():
            return print_completion(words[1])
    if not name.startswith('-'):
        words[:1] = name.replace('-', '_').split()  # none if there was none
    args = make_parser(''.join(words[:1])).parse_args(words)
    from convmlp_backbone.errors import UserError, one_line_errors
    from convmlp_backbone.processes import is_first_process

    as_json = getattr(args, 'json', False)
    failure = None
    with one_line_errors():
        # With --json, what else is printed, such as a log, goes where it is in nobody's way.
        with redirect_stdout(sys.stderr) if as_json else nullcontext():
            try:
                answer = args.run(args)
            except UserError as error:
                failure, answer = error, error.answer
        if as_json and not (failure and answer is None) and is_first_process():
            print(json.dumps(answer, indent=1, default=float))
        if failure:
            raise failure


if __name__ == '__main__':
    main()
