"""convmlp check_dataset on the coins, whole and spoilt."""

import json
import shutil

import pytest
from PIL import Image

from convmlp_backbone.checks.problem import alike, error
from convmlp_cli import main

CONFIGS = ['maskrcnn_convmlp_s_fpn_coins', 'fpn_convmlp_s_coins']


def needs(config):
    pytest.importorskip('mmseg' if config.startswith('fpn') else 'mmdet')


@pytest.fixture
def spoilt(coins, tmp_path):
    return shutil.copytree(coins, tmp_path / 'data')


def check(call_tool, config, root):
    needs(config)
    return call_tool(
        'check_dataset', config, '--data-root', root, '--work-dir', 'work', '--processes', '2'
    )


@pytest.mark.parametrize('config', CONFIGS)
def test_whole_data_pass_and_are_drawn(config, coins, call_tool, tmp_path):
    assert '33 samples, 0 errors, 0 warnings' in check(call_tool, config, coins)
    with Image.open(tmp_path / 'work/samples.png') as sheet:
        colours = sheet.convert('RGB').getcolors(sheet.width * sheet.height)
    assert len(colours) > 1000 and any(len(set(colour)) > 1 for _, colour in colours)


@pytest.mark.parametrize('config', CONFIGS)
def test_spoilt_images_are_named(config, spoilt, call_tool, capsys):
    image = spoilt / 'train/03.png'
    image.write_bytes(image.read_bytes()[:5000])
    (spoilt / 'train/07.png').write_bytes(b'')
    error = check(call_tool, config, spoilt)
    printed = capsys.readouterr().out
    assert error == 'error: training would fail or learn something wrong'
    for name in ('03.png', '07.png'):
        assert any(line.startswith('error: ') and name in line for line in printed.splitlines())
    assert '05.png' not in printed and printed.count('07.png') == 1


def test_spoilt_annotations_are_named(spoilt, call_tool, capsys):
    path = spoilt / 'annotations/instances_train.json'
    coco = json.loads(path.read_text())
    coco['annotations'][4]['bbox'][1] = float('nan')
    coco['annotations'][9]['category_id'] = 8
    path.write_text(json.dumps(coco))
    assert check(call_tool, CONFIGS[0], spoilt).startswith('error: ')
    printed = capsys.readouterr().out
    assert 'annotation 5 of 00.png has the box [' in printed
    assert 'annotation 10 of 00.png is of category 8, which is not in the file' in printed


def test_spoilt_maps_are_named(spoilt, call_tool, capsys):
    mask = spoilt / 'masks/train/02.png'
    Image.new('L', (10, 10)).save(spoilt / 'masks/train/06.png')
    Image.open(mask).point(lambda value: 9 if value == 2 else value).save(mask)
    assert check(call_tool, CONFIGS[1], spoilt).startswith('error: ')
    printed = capsys.readouterr().out
    assert 'the masks hold 9, the classes are 1 to 2 (background, coin)' in printed
    assert 'masks/train/06.png' in printed
    assert 'is 10x10, its image 250x250' in printed


def test_the_answer_for_programs(coins, spoilt, call_tool, capsys):
    """Is whole, and alone on the standard output, whether there are errors or not."""
    answer = json.loads(call_tool('check_dataset', CONFIGS[0], '--data-root', coins, '--json'))
    assert answer['samples'] == 33 and {p['severity'] for p in answer['problems']} <= {'note'}
    assert answer['scores_of_the_truth']['val']['coco/bbox_mAP'] == 1
    (spoilt / 'train/03.png').unlink()
    with pytest.raises(SystemExit, match='training would fail'):
        main(['check_dataset', CONFIGS[0], '--data-root', str(spoilt), '--json'])
    answer = json.loads(capsys.readouterr().out)
    assert any('03.png' in p['where'] + p['text'] for p in answer['problems'])


def test_what_all_samples_say_is_said_a_few_times():
    problems = [error(f'{i}.png', "KeyError: 'mask'") for i in range(8)] + [error('1.png', 'torn')]
    told = alike(problems)
    assert [p.where for p in told] == ['0.png', '1.png', '2.png', '3.png', '4.png', '1.png']
    assert told[4].text == "KeyError: 'mask' (and so 3 more)" and told[5] == problems[-1]
