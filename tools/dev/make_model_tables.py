"""Make the tables of models in README.md and docs/ out of model-index.yml: no arguments.

A table stands between the lines ``<!-- models: TASK, ... -->`` and ``<!-- end of models -->``.
"""

import os
import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
MARKED = re.compile(r'(<!-- models: (.+?) -->\n).*?(<!-- end of models -->)', re.S)
SCORES = {'box AP': 'box AP', 'mask AP': 'mask AP', 'mIoU': 'mIoU', 'Top 1 Accuracy': 'top-1'}


def read_models():
    """The models of model-index.yml, a list of dicts in OpenMMLab's metafile form."""
    return yaml.safe_load((ROOT / 'model-index.yml').read_text())['Models']


def make_table(models, folder):
    """Lines of a table with a row per model; its links start from ``folder``."""
    lines = [
        "| config | parameters | MACs | input | the paper's score | weights |",
        '|---|---:|---:|---|---|---|',
    ]
    for model in models:
        facts, config = model['Metadata'], os.path.relpath(ROOT / model['Config'], folder)
        scores = [
            f'{SCORES[name]} {value}'
            for result in model['Results']
            for name, value in result['Metrics'].items()
            if name in SCORES
        ]
        lines.append(
            f'| [`{model["Name"]}`]({config}) | {facts["Parameters"]:,} '
            f'| {facts["MACs"] / 1e9:.{1 if facts["MACs"] > 2e10 else 3}f} G '
            f'| {facts["Input"].removeprefix("3x").replace("x", "×")} '
            f'| {", ".join(scores)} | [file]({model["Weights"]}) |'
        )
    return lines


def with_tables(page):
    """The text of a page with its tables made anew."""

    def table(match):
        tasks = match[2].split(', ')
        models = [m for m in read_models() if m['Results'][0]['Task'] in tasks]
        return match[1] + '\n' + '\n'.join(make_table(models, page.parent)) + '\n\n' + match[3]

    return MARKED.sub(table, page.read_text())


def pages():
    """The pages that have a table."""
    return [
        page
        for page in [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md')]
        if MARKED.search(page.read_text())
    ]


def main():
    for page in pages():
        page.write_text(with_tables(page))
        print(page)


if __name__ == '__main__':
    main()
