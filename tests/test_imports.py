"""Who imports whom: the law of CONTRIBUTING.md, read off the import statements, lazy ones too."""

import ast
import re
from graphlib import TopologicalSorter

from conftest import ROOT

from convmlp_cli import commands

FILES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
    for path in (ROOT / 'convmlp_backbone').rglob('*.py')
}
COMMANDS = {f'convmlp_backbone.commands.{name}' for name in commands()}


def imported(name):
    """The modules of the package that the module ``name`` imports anywhere in its code."""
    package = name if FILES[name].name == '__init__.py' else name.rpartition('.')[0]
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = (
                '.'.join(package.split('.')[: len(package.split('.')) + 1 - node.level])
                if node.level
                else ''
            )
            base = '.'.join(filter(None, (base, node.module)))
            found |= {
                part if (part := f'{base}.{alias.name}') in FILES else base for alias in node.names
            }
    return found & FILES.keys()


GRAPH = {name: imported(name) for name in FILES}


def test_the_parser_sees_imports():
    assert 'convmlp_backbone.archs' in GRAPH['convmlp_backbone.commands.get_flops']
    assert 'convmlp_backbone.archs' in GRAPH['convmlp_backbone.checkpoints.names']
    assert len(COMMANDS) >= 11 and COMMANDS < FILES.keys()


def test_no_module_imports_a_command():
    for name, found in GRAPH.items():
        assert not found & COMMANDS, name
        if '.commands' not in name:
            assert not [other for other in found if '.commands' in other], name


def test_one_road_from_a_name_to_a_model():
    """find -> read -> check -> build: no command reads a config past the checks."""
    for name in COMMANDS:
        assert not re.findall(r'\bread_config\b|\bfromfile\b', FILES[name].read_text()), name


def test_nothing_in_a_circle():
    TopologicalSorter(GRAPH).prepare()  # raises a CycleError that names the circle
