import hashlib
import io
import multiprocessing
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from convmlp_backbone import checkpoints
from convmlp_backbone.checkpoints import CheckpointError, download
from convmlp_backbone.checkpoints.reading import container
from convmlp_backbone.errors import DownloadError


def checkpoint(seed, numbers=125000):
    """A checkpoint file."""
    file = io.BytesIO()
    torch.save(dict(x=torch.rand(numbers, generator=torch.Generator().manual_seed(seed))), file)
    return file.getvalue()


CONTENT = checkpoint(0)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT, in the way that the server's attributes ask for."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers['Range'])
        server.headers.append(self.headers)
        time.sleep(server.delay)
        if server.script:
            answer = server.script.pop(0)
            return self.answer(**(answer(self.headers) if callable(answer) else answer))
        if self.path.endswith('missing.pth'):
            return self.send_error(404)
        start = 0
        changed = self.headers['If-Range'] not in (None, server.etag)
        if self.headers['Range'] and server.ranges and not changed:
            start = int(self.headers['Range'][len('bytes=') : -1])
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}')
        else:
            self.send_response(200)
        if server.length:
            self.send_header('Content-Length', str(len(CONTENT) - start))
        if server.etag:
            self.send_header('ETag', server.etag)
        self.send_header('Content-Type', server.type)
        self.end_headers()
        # While there are cuts, the connection breaks off after so many bytes.
        end = start + server.cuts.pop(0) if server.cuts else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def answer(self, body=b'', status=200, cut=None, **headers):
        """Send what is given, and all of ``body`` or as much as ``cut`` says."""
        self.send_response(status)
        for name, value in {'Content_Length': len(body), **headers}.items():
            if value is not None:
                self.send_header(name.replace('_', '-'), str(value))
        self.end_headers()
        self.wfile.write(body[:cut])

    def log_message(self, *args):
        pass


@contextmanager
def serving():
    """A web server on loopback."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.requests, server.headers, server.script, server.cuts = [], [], [], []
    server.delay = 0
    server.ranges, server.length, server.etag = True, True, '"1"'
    server.type = 'application/octet-stream'
    server.url = f'http://127.0.0.1:{server.server_port}/'
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server as the published address, and an empty cache."""
    with serving() as server:
        monkeypatch.setattr(checkpoints.published, 'BASE_URL', server.url)
        monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
        monkeypatch.delenv('CONVMLP_CHECKPOINTS', raising=False)
        monkeypatch.delenv('http_proxy', raising=False)
        yield server


@pytest.fixture(scope='module')
def scripted(tmp_path_factory):
    """A web server and a folder for all examples of a property."""
    with serving() as server:
        yield server, tmp_path_factory.mktemp('downloads')


def fetch(name='convmlp_s_imagenet.pth'):
    return checkpoints.fetch(f'convmlp://{name}')


def files(tmp_path):
    """What is in the cache, locks aside."""
    return sorted(p.name for p in tmp_path.rglob('*') if p.is_file() and p.suffix != '.lock')


def test_goes_to_the_cache_once(server, tmp_path):
    path = fetch()
    assert path == tmp_path / 'hub/checkpoints/convmlp_s_imagenet.pth'
    assert path.read_bytes() == CONTENT
    assert fetch() == path and server.requests == [None]
    assert files(tmp_path) == [path.name]


def test_addresses_that_end_alike(server):
    one, other = (
        checkpoints.fetch(f'http://localhost:{server.server_port}/{folder}/x.pth')
        for folder in 'ab'
    )
    assert one != other and one.name == other.name == 'x.pth'


@pytest.mark.parametrize(
    'ranges, etag, resumed',
    [
        (True, '"1"', ['bytes=100000-', 'bytes=300000-']),
        (False, '"1"', ['bytes=100000-'] * 2),
        (True, None, [None, None]),
        (True, 'W/"1"', [None, None]),
    ],
)
def test_cut_connection(server, ranges, etag, resumed):
    server.cuts, server.ranges, server.etag = [100000, 200000], ranges, etag
    if not ranges:
        resumed = ['bytes=100000-', 'bytes=200000-']
    assert fetch().read_bytes() == CONTENT
    assert server.requests == [None, *resumed]


def test_another_file_after_the_cut(server, monkeypatch):
    server.cuts = [100000]
    received = download._chunks

    def change_after_cut(response):
        yield from received(response)
        server.etag = '"2"'

    monkeypatch.setattr(download, '_chunks', change_after_cut)
    assert fetch().read_bytes() == CONTENT
    assert server.requests == [None, 'bytes=100000-']


@pytest.mark.parametrize(
    'trouble, words',
    [
        (dict(cuts=[10] * 9), ['broke off 5 times', 'bytes']),
        (dict(delay=0.5), ['timed out']),
        (dict(type='text/html; charset=utf-8'), ['web page']),
        (dict(length=False), ['how long']),
    ],
    ids=str,
)
def test_trouble_leaves_nothing_behind(server, tmp_path, monkeypatch, trouble, words):
    monkeypatch.setattr(download, 'TIMEOUT', 0.2)
    vars(server).update(trouble)
    with pytest.raises(CheckpointError) as error:
        fetch()
    for word in [*words, server.url + 'convmlp_s_imagenet.pth', 'CONVMLP_CHECKPOINTS']:
        assert word in str(error.value)
    assert '\n' not in str(error.value)
    assert files(tmp_path) == []


def test_404(server, tmp_path):
    with pytest.raises(CheckpointError, match=r'missing\.pth: HTTP Error 404'):
        checkpoints.fetch(f'{server.url.replace("127.0.0.1", "localhost")}missing.pth')
    assert files(tmp_path) == []


def test_nobody_answers(server, tmp_path):
    server.shutdown()
    server.server_close()
    from convmlp_backbone import ConvMLP

    with pytest.raises(CheckpointError) as error:
        checkpoints.load_backbone(ConvMLP(), 'convmlp://convmlp_s_imagenet.pth')
    for word in (server.url, 'refused', 'CONVMLP_CHECKPOINTS', 'model.backbone.init_cfg=None'):
        assert word in str(error.value)


@pytest.mark.parametrize(
    'known, right',
    [
        (dict(sha256=SHA256, size=len(CONTENT)), True),
        (dict(sha256='0' * 64), False),
        (dict(size=5), False),
    ],
    ids=str,
)
def test_known_size_and_hash(server, tmp_path, known, right):
    path = tmp_path / 'hub/x.pth'
    if right:
        download.download(server.url, path, **known)
        assert path.read_bytes() == CONTENT
    else:
        with pytest.raises(DownloadError, match='as published'):
            download.download(server.url, path, **known)
        assert files(tmp_path) == []


def test_rest_of_a_killed_download_is_no_harm(server, tmp_path):
    (tmp_path / 'hub/checkpoints').mkdir(parents=True)
    (tmp_path / 'hub/checkpoints/.convmlp_s_imagenet.00ff00ff.part.pth').write_bytes(b'x' * 99)
    assert fetch().read_bytes() == CONTENT
    assert files(tmp_path) == ['convmlp_s_imagenet.pth']


def test_processes_of_one_job_download_once(server, tmp_path):
    server.delay = 0.3
    context = multiprocessing.get_context('fork')
    jobs = [
        context.Process(target=download.download, args=(server.url, tmp_path / 'x'))
        for _ in range(4)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * 4
    assert len(server.requests) == 1 and (tmp_path / 'x').read_bytes() == CONTENT


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / 'hub').write_text('a file')
    with pytest.raises(CheckpointError, match='hub'):
        fetch()


# Answers that are not simply the file. Each script is a list of answers, the honest ones follow.

N = len(CONTENT)
OTHER = checkpoint(1)


def part(start, stop, content=CONTENT, total=N, **headers):
    return (
        dict(
            body=content[start:stop],
            status=206,
            ETag='"1"',
            Content_Range=f'bytes {start}-{stop - 1}/{total}',
        )
        | headers
    )


def cut(at, content=CONTENT, **headers):
    return dict(body=content, cut=at, ETag='"1"') | headers


SCRIPTS = {
    'a range in parts': [cut(1000), part(1000, 5000), part(5000, 90000), part(90000, 300000)],
    'an unasked part': [part(0, 1000)],
    'ten parts': [part(i * 1000, i * 1000 + 1000) for i in range(10)],
    'another total': [cut(1000), part(1000, N, total=N + 1)],
    'another file, If-Range ignored': [cut(1000, OTHER, ETag='"0"'), part(1000, N)],
    'another date, If-Range ignored': [
        cut(1000, OTHER, ETag=None, Last_Modified='Mon, 01 Jan 2024 00:00:00 GMT'),
        part(1000, N, ETag=None, Last_Modified='Tue, 02 Jan 2024 00:00:00 GMT'),
    ],
    'no ETag with the rest': [cut(1000), part(1000, N, ETag=None)],
    'more than the part': [cut(1000), part(1000, 2000, Content_Length=None)],
}


@pytest.mark.parametrize('script', SCRIPTS)
def test_answers_that_give_the_file(server, tmp_path, script):
    server.script = list(SCRIPTS[script])
    assert fetch().read_bytes() == CONTENT
    assert files(tmp_path) == ['convmlp_s_imagenet.pth']


JSON = b'{"error": "not found"}' * 99
XHTML = b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">' * 99
REFUSED = {
    'length 0': (dict(), 'the answer is empty'),
    '204': (dict(status=204), 'HTTP 204'),
    'gzip': (dict(body=CONTENT, Content_Encoding='gzip'), 'encoded: gzip'),
    'json': (dict(body=JSON, Content_Type='application/json'), "begins with b'{"),
    'xhtml': (dict(body=XHTML, Content_Type='application/xhtml+xml'), r"begins with b'<\?xml"),
    'half a file': (dict(body=CONTENT[: N // 2]), 'end of the zip file is missing'),
    'length is text': (dict(body=CONTENT, Content_Length='many'), 'how long'),
    'length is negative': (dict(body=CONTENT, Content_Length='-5'), 'how long'),
    'a part from the middle': (part(1000, N), 'another part'),
    'a part of an unknown whole': (part(0, N, total='*'), 'which part'),
    'a part of no place': (part(0, N, Content_Range=None), 'which part'),
    'a part of another length': (part(0, 1000, Content_Length=999), 'which part'),
    'redirects in a circle': (dict(status=302, Location='/convmlp_s_imagenet.pth'), 'loop'),
    'redirect to a file': (dict(status=302, Location='file:///etc/passwd'), 'not allowed'),
}


@pytest.mark.parametrize('name', REFUSED)
def test_answers_that_are_refused(server, tmp_path, name):
    answer, words = REFUSED[name]
    server.script = [answer] * 12
    with pytest.raises(CheckpointError, match=words) as error:
        fetch()
    assert server.url in str(error.value) and '\n' not in str(error.value)
    assert files(tmp_path) == []


def test_rest_nobody_asked_for_after_the_file_changed(server, tmp_path):
    server.script = [cut(1000, OTHER, ETag='"0"'), part(1000, N), part(1000, N)]
    with pytest.raises(CheckpointError, match='another part of the file'):
        fetch()
    assert files(tmp_path) == []


def test_changing_file(server, tmp_path):
    server.script = [cut(1000), part(1000, N, ETag='"2"')] * 9
    with pytest.raises(CheckpointError, match='the file changed 5 times|broke off 5 times'):
        fetch()
    assert files(tmp_path) == []


def test_what_lies_in_the_cache_and_is_no_checkpoint_is_replaced(server, tmp_path):
    path = tmp_path / 'hub/checkpoints/convmlp_s_imagenet.pth'
    path.parent.mkdir(parents=True)
    path.write_bytes(JSON)
    assert fetch().read_bytes() == CONTENT


@pytest.mark.parametrize(
    'address, name',
    [
        ('a/x.pth?download=true', 'x.pth'),
        ('x.safetensors?X-Amz-Signature=' + 'f' * 999, 'x.safetensors'),
        ('y' * 300 + '.pth', 'y' * 96 + '.pth'),
        ('%2e%2e%2f%2e%2e%2fx.pth', '2e_2e_2f_2e_2e_2fx.pth'),
        ('..', 'checkpoint'),
        ('?id=5', 'checkpoint'),
        ('a b.pth'.replace(' ', '%20'), 'a_20b.pth'),
    ],
)
def test_name_in_the_cache(server, tmp_path, address, name):
    path = checkpoints.fetch(f'http://localhost:{server.server_port}/{address}')
    assert path.name.lstrip('_') == name and path.parent.parent == tmp_path / 'hub/checkpoints'
    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    'answer', [None, dict(status=404), dict(body=JSON)], ids=['the file', '404', 'json']
)
def test_secrets_of_an_address_are_sent_but_not_shown(server, capsys, answer):
    from convmlp_backbone import ConvMLP

    server.script = [answer] if answer else []
    source = f'http://us%40er:secret@localhost:{server.server_port}/x.pth?token=hidden'
    with pytest.raises(CheckpointError) as error:
        checkpoints.load_backbone(ConvMLP(), source)
    output = capsys.readouterr()
    for secret in ('us%40er', 'us@er', 'secret', 'hidden'):
        assert secret not in str(error.value) + output.out + output.err
    assert f'http://localhost:{server.server_port}/x.pth' in str(error.value)
    assert server.headers[0]['Authorization'] == 'Basic dXNAZXI6c2VjcmV0'


@pytest.mark.parametrize(
    'address',
    [
        'http://user:pa/ss@host/x.pth',
        'http://user:p#a@host/x',
        'HTTP://user:pass@host/x?a@b',
        'https://user:p@ss@[::1]:80/x',
    ],
)
def test_shown_address(address):
    assert not set('user pa ss pass p@ss'.split()) & set(download.shown(address).split('/'))
    assert 'user' not in download.shown(address)


def test_a_redirection_does_not_get_the_password(server):
    server.script = [dict(status=302, Location=f'http://127.0.0.1:{server.server_port}/x.pth')]
    checkpoints.fetch(f'http://user:secret@localhost:{server.server_port}/x.pth')
    assert [bool(headers['Authorization']) for headers in server.headers] == [True, False]


def test_hash_in_the_address(server, tmp_path, monkeypatch):
    address = f'http://localhost:{server.server_port}/x.pth'
    assert checkpoints.fetch(f'{address}#sha256={SHA256}').read_bytes() == CONTENT
    with pytest.raises(CheckpointError, match=f'has the SHA-256 {SHA256}, not 0000'):
        checkpoints.fetch(f'{address}#sha256={"0" * 64}')
    with pytest.raises(CheckpointError, match='expected 64 hexadecimal digits'):
        checkpoints.fetch(f'{address}#sha256=abc')
    published = f'convmlp://convmlp_s_imagenet.pth#sha256={SHA256}'
    assert checkpoints.fetch(published).read_bytes() == CONTENT
    monkeypatch.setenv('CONVMLP_CHECKPOINTS', str(tmp_path))
    (tmp_path / 'convmlp_s_imagenet.pth').write_bytes(OTHER)
    with pytest.raises(CheckpointError, match='has the SHA-256'):
        checkpoints.fetch(published)


# Whatever the server answers: it may break off, change the file, ignore what is asked for or send
# something else, as long as the bytes it sends are those that it says they are.

FILES = {'"1"': checkpoint(2, 1000), '"2"': checkpoint(3, 1000)}


@st.composite
def answers(draw):
    """An answer, or a function that gives one to the headers of a request."""
    etag = draw(st.sampled_from(sorted(FILES)))
    content, size = FILES[etag], len(FILES[etag])
    headers = dict(
        cut=draw(st.none() | st.integers(0, size)),
        ETag=draw(st.sampled_from([etag, etag, f'W/{etag}'])),
    )
    kind = draw(st.sampled_from(['file', 'part', 'rest', 'rest', 'rest', 'error', 'odd']))
    if kind == 'file':
        return dict(body=content) | headers
    if kind == 'part':
        start = draw(st.just(0) | st.integers(0, size - 1))
        return part(start, draw(st.integers(start + 1, size)), content, size) | headers
    if kind == 'error':
        return dict(status=draw(st.sampled_from([204, 301, 404, 416, 500, 503])))
    if kind == 'odd':
        names = 'Length', 'Encoding', 'Range', 'Type'
        values = '', '0', '-1', '99999', 'gzip', 'text/html', 'bytes 0-9/10', f'bytes 0-9/{size}'
        return dict(
            body=draw(st.sampled_from([b'', JSON, content, content[:500]])),
            status=draw(st.sampled_from([200, 206])),
            **draw(
                st.dictionaries(
                    st.sampled_from([f'Content_{name}' for name in names]), st.sampled_from(values)
                )
            ),
        )
    length = draw(st.integers(1, size))

    def rest(request):
        start = int((request['Range'] or 'bytes=0-')[len('bytes=') : -1])
        return part(start, min(start + length, size), content, size) | headers

    return rest


@pytest.mark.adversary
@given(script=st.lists(answers(), max_size=12), honest=st.booleans())
def test_a_download_is_one_file_or_none(scripted, script, honest):
    server, folder = scripted
    server.script = script + ([] if honest else [dict(status=500)] * 20)
    path = folder / f'{len(server.requests)}.pth'
    try:
        download.download(server.url, path, check=container)
    except DownloadError as error:
        assert '\n' not in str(error) and not path.exists()
    else:
        assert path.read_bytes() in (CONTENT, *FILES.values())
    assert not [other for other in folder.iterdir() if 'part' in other.name]
