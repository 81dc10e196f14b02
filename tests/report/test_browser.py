"""A report in a real browser: no error, figures drawn, filters and zoom that work."""

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading

import pytest

pytest.importorskip('hotcoco')

from made_evidence import NASTY, many  # noqa: E402

from convmlp_backbone.report.detection_sections import sections  # noqa: E402
from convmlp_backbone.report.page import page  # noqa: E402

CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason='no chromium on the PATH')

# A page that uses the report as a person would, and writes down what it sees.
HARNESS = """<!DOCTYPE html><pre id="seen"></pre>
<iframe src="report.html" style="width:390px;height:800px"></iframe><script>
const frame = document.querySelector('iframe'), seen = {};
frame.onload = () => {
  const page = frame.contentDocument, all = (s) => [...page.querySelectorAll(s)];
  const shown = (s) => all(s).filter((e) => e.getClientRects().length).length;
  const set = (name, value) => {
    const input = page.querySelector(name);
    input.value = value;
    input.dispatchEvent(new Event('input'));
  };
  seen.title = page.title;
  seen.scripts = page.scripts.length;
  seen.hacked = frame.contentWindow.hacked ?? null;
  seen.wide = page.documentElement.scrollWidth;
  seen.charts = shown('svg.chart path.line, svg.chart rect');
  seen.maps = shown('svg.map');
  seen.images = all('.card image').filter((e) => e.getBoundingClientRect().width > 50).length;
  seen.cards = [shown('.card')];
  for (const value of ['worst', 'typical', '']) {
    set('[name=set]', value);
    seen.cards.push(shown('.card'));
  }
  set('[name=class]', page.querySelector('[name=class]').options[1].value);
  seen.of_class = shown('.card');
  set('[name=class]', '');
  seen.predictions = ['0', '0.5', '1'].map((score) => {
    set('[name=score]', score);
    return [shown('.card [data-score]:not(text)'), shown('.card [data-found].wrong')];
  });
  set('.find', 'nine');
  seen.rows = shown('.table:has(.find) tbody tr');
  page.querySelectorAll('.card .panels')[1].click();
  const dialog = page.querySelector('dialog'), stage = page.querySelector('.stage .panels');
  const press = (name) => page.querySelector(`[data-do=${name}]`).click();
  const width = () => page.querySelector('.stage .panels').getBoundingClientRect().width;
  seen.zoom = [dialog.open, width()];
  press('larger');
  seen.zoom.push(width());
  const name = page.querySelector('dialog .name').textContent;
  press('next');
  seen.zoom.push(page.querySelector('dialog .name').textContent !== name, shown('.stage image'));
  press('close');
  seen.zoom.push(dialog.open);
  document.getElementById('seen').textContent = JSON.stringify(seen);
};
</script>"""


def run(folder, *arguments):
    done = subprocess.run(
        [
            CHROMIUM,
            '--headless=new',
            '--no-sandbox',
            '--disable-gpu',
            '--enable-logging=stderr',
            '--virtual-time-budget=10000',
            f'--user-data-dir={folder / "profile"}',
            *arguments,
        ],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=120,
    )
    # What a script, the page's policy or the network had to complain of.
    complaints = re.findall(r'.*CONSOLE.*', done.stderr)
    return done.stdout, complaints


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('browser')
    (folder / 'images').mkdir()
    names = [*NASTY, *(f'class {i}' for i in ('four', 'five', 'six', 'seven', 'eight', 'nine'))]
    found = many(folder / 'images', images=45, classes=(*names, 'ten', 'eleven'))
    (folder / 'images/3.jpg').write_text('no image')
    content = page(NASTY[0], [NASTY[1]], list(sections(found)))
    (folder / 'report.html').write_text(content)
    (folder / 'harness.html').write_text(HARNESS)
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_filters_and_zoom_on_a_phone(folder):
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(('localhost', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://localhost:{server.server_port}/harness.html'
        printed, complaints = run(folder, '--dump-dom', address)
        server.shutdown()
    assert not [line for line in complaints if 'favicon' not in line]
    written = re.search(r'<pre id="seen">(.*?)</pre>', printed, re.S)[1]
    seen = json.loads(html.unescape(written))
    assert seen['title'] == NASTY[0] and seen['scripts'] == 1 and seen['hacked'] is None
    assert seen['wide'] <= 390
    assert seen['charts'] > 30 and seen['maps'] == 1
    assert seen['images'] >= 39
    assert seen['cards'] == [40, 20, 20, 40] and 0 < seen['of_class'] < 40
    (low, found), (some, missed), (none, lost) = seen['predictions']
    assert low > some > none == 0 and found < missed < lost
    assert seen['rows'] == 1
    opened, width, larger, other, images, still = seen['zoom']
    assert opened and larger > 1.4 * width and other and images == 1 and not still


def test_it_opens_as_a_file_and_prints(folder):
    """Without a server; the picture is not empty, the PDF has pages."""
    from PIL import Image

    address = f'file://{folder}/report.html'
    for name, options in (('light', []), ('dark', ['--blink-settings=preferredColorScheme=0'])):
        _, complaints = run(
            folder, *options, f'--screenshot={folder}/{name}.png', '--window-size=900,1200', address
        )
        assert not complaints
    corners = {
        name: sum(Image.open(folder / f'{name}.png').convert('RGB').getpixel((5, 5)))
        for name in ('light', 'dark')
    }
    assert corners['light'] > 600 > 200 > corners['dark']
    _, complaints = run(folder, f'--print-to-pdf={folder}/report.pdf', address)
    assert not complaints
    pages = re.findall(rb'/Type */Page\b', (folder / 'report.pdf').read_bytes())
    assert 3 <= len(pages) <= 30
