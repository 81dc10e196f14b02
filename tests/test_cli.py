"""The table of the commands: quick, complete, and each command with its help."""

import json
import re
import subprocess
import sys

import pytest
from conftest import ROOT

from convmlp_backbone.commands import options
from convmlp_cli import commands, main, make_parser, print_completion

NAMES = list(commands())


def test_the_list_of_commands_needs_no_package():
    """Importing PyTorch and MMEngine takes seconds."""
    program = """
import sys, convmlp_cli
try:
    convmlp_cli.main(['--help'])
except SystemExit as end:
    print(end.code, {'torch', 'mmengine', 'convmlp_backbone'} & sys.modules.keys())
"""
    printed = subprocess.check_output([sys.executable, '-c', program], cwd=ROOT, text=True)
    assert printed.endswith('\n0 set()\n')
    for name in (
        'train',
        'test',
        'predict',
        'export',
        'check_dataset',
        'get_flops',
        'grad_cam',
        'visualize_features',
        'plot',
        'convert',
        'publish',
    ):
        assert re.search(rf'^    {name}  +[A-Z]', printed, re.M), name


@pytest.mark.parametrize('name', NAMES)
def test_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        main([name.replace('_', '-'), '--help'])
    text = capsys.readouterr().out
    assert end.value.code == 0 and f'\n  convmlp {name} ' in text  # an example
    (actions,) = (
        action.choices[name]._actions
        for action in make_parser(name)._actions
        if action.dest == 'command'
    )
    assert all(action.help for action in actions), [a.dest for a in actions if not a.help]


@pytest.mark.parametrize('name', NAMES)
def test_an_option_is_described_once(name):
    text = (ROOT / f'convmlp_backbone/commands/{name}.py').read_text()
    assert not set(re.findall(r"add_argument\(\s*'([^']+)'", text)) & options.OPTIONS.keys()


@pytest.mark.parametrize(
    'argv, status, words',
    [
        ([], 2, 'COMMAND'),
        (['trian', 'x'], 2, 'invalid choice'),
        (['plot', '--nope'], 2, 'required'),
        (['plot', 'nowhere'], 'error: nowhere has no log', ''),
        (['check_dataset', 'x.py', '--processes', '0'], 'error: --processes 0: expected 1', ''),
    ],
)
def test_status_0_only_for_success(argv, status, words, capsys):
    with pytest.raises(SystemExit) as end:
        main(argv)
    assert end.value.code == status or str(end.value.code).startswith(str(status))
    assert words in capsys.readouterr().err


def test_json_is_all_that_is_printed(call_tool, capsys):
    answer = json.loads(call_tool('get_flops', 'convmlp_s_cifar10', '--json', '--shape', 64))
    assert answer['input'] == [3, 64, 64]
    assert answer['rows'][0]['module'] == 'ConvMLPClassifier'
    assert answer['rows'][0]['parameters'] == 8_515_050


@pytest.mark.parametrize('shell', ['bash', 'zsh'])
def test_completion(shell, capsys, tmp_path):
    pytest.importorskip('shtab')
    print_completion(shell)
    text = capsys.readouterr().out
    assert '--markdown' in text and 'check_dataset' in text
    if shell == 'bash':
        (tmp_path / 'completion').write_text(text)
        typed = ['convmlp', 'train', 'fpn_convmlp_s_co']
        completed = subprocess.check_output(
            [
                'bash',
                '-c',
                f'source completion; COMP_WORDS=({" ".join(typed)}); COMP_CWORD=2; '
                '_shtab_convmlp; echo ${COMPREPLY[@]}',
            ],
            cwd=tmp_path,
            text=True,
        )
        assert completed == 'fpn_convmlp_s_coins\n'
