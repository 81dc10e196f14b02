import hashlib
import multiprocessing
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from convmlp_backbone import checkpoints
from convmlp_backbone.checkpoints import CheckpointError, download
from convmlp_backbone.errors import DownloadError

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT, in the way that the server's attributes ask for."""

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers['Range'])
        time.sleep(server.delay)
        if self.path.endswith('missing.pth'):
            return self.send_error(404)
        start = 0
        changed = self.headers['If-Range'] not in (None, server.etag)
        if self.headers['Range'] and server.ranges and not changed:
            start = int(self.headers['Range'][len('bytes='):-1])
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

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A web server on loopback as the published address, and an empty cache."""
    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    server.requests, server.cuts, server.delay = [], [], 0
    server.ranges, server.length, server.etag = True, True, '"1"'
    server.type = 'application/octet-stream'
    server.url = f'http://127.0.0.1:{server.server_port}/'
    thread = threading.Thread(target=server.serve_forever, kwargs=dict(poll_interval=0.01))
    thread.start()
    monkeypatch.setattr(checkpoints.published, 'BASE_URL', server.url)
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.delenv('CONVMLP_CHECKPOINTS', raising=False)
    monkeypatch.delenv('http_proxy', raising=False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


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
    one, other = (checkpoints.fetch(f'http://localhost:{server.server_port}/{folder}/x.pth')
                  for folder in 'ab')
    assert one != other and one.name == other.name == 'x.pth'


@pytest.mark.parametrize('ranges, etag, resumed', [
    (True, '"1"', ['bytes=100000-', 'bytes=300000-']), (False, '"1"', ['bytes=100000-'] * 2),
    (True, None, [None, None]), (True, 'W/"1"', [None, None])])
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


@pytest.mark.parametrize('trouble, words', [
    (dict(cuts=[10] * 9), ['broke off 5 times', 'bytes']),
    (dict(delay=0.5), ['timed out']),
    (dict(type='text/html; charset=utf-8'), ['web page']),
    (dict(length=False), ['how long'])], ids=str)
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


@pytest.mark.parametrize('known, right', [
    (dict(sha256=SHA256, size=len(CONTENT)), True), (dict(sha256='0' * 64), False),
    (dict(size=5), False)], ids=str)
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
    (tmp_path / 'hub/checkpoints/convmlp_s_imagenet.pth.part').write_bytes(b'x' * 999999)
    assert fetch().read_bytes() == CONTENT
    assert files(tmp_path) == ['convmlp_s_imagenet.pth']


def test_processes_of_one_job_download_once(server, tmp_path):
    server.delay = 0.3
    context = multiprocessing.get_context('fork')
    jobs = [context.Process(target=download.download, args=(server.url, tmp_path / 'x'))
            for _ in range(4)]
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
