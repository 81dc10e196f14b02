"""Download a file over HTTP: afterwards it is there and complete, or it is not there at all."""
import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from urllib.request import Request, urlopen

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ..errors import DownloadError

TIMEOUT = 30  # seconds without an answer
ATTEMPTS = 5  # connections, where one after the other breaks off
_COLUMNS = (TextColumn('{task.description}'), BarColumn(), DownloadColumn(), TransferSpeedColumn())


def download(url, path, size=None, sha256=None):
    """Download ``url`` to ``path``, unless it is there.

    Of the processes that ask for the same file at the same time, as those of a distributed run do,
    one downloads and the others wait for it.

    Args:
        url (str): ``http://`` or ``https://`` address.
        path (str | Path): Where the file is to lie; the folder is made.
        size (int, optional): Its length in bytes, if known.
        sha256 (str, optional): Its SHA-256 in hexadecimal digits, if known.

    Raises:
        DownloadError: No answer, an answer other than the file, or the wrong file.
    """
    from filelock import FileLock  # which torch needs; half of this package's time to import

    path = Path(path)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    with FileLock(f'{path}.lock'):
        if path.exists():
            return
        try:
            with open(part, 'wb+') as file:
                _receive(url, file)
                _check(file, size, sha256)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except (OSError, HTTPException, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise DownloadError(f'cannot download {url}: {reason}') from None
        finally:
            part.unlink(missing_ok=True)


def _receive(url, file):
    """Write what ``url`` holds to ``file``; where the connection breaks off, go on in a new one."""
    version = None
    for _ in range(ATTEMPTS):
        # Without a version the rest could be that of another file: then start again.
        headers = {'User-Agent': 'convmlp-backbone'}
        if version and file.tell():
            headers.update({'Range': f'bytes={file.tell()}-', 'If-Range': version})
        with urlopen(Request(url, headers=headers), timeout=TIMEOUT) as response:
            if response.headers.get_content_type() == 'text/html':
                raise DownloadError('the answer is a web page')
            length = response.headers['Content-Length']
            if length is None:
                raise DownloadError('the answer does not tell how long the file is')
            if response.status != 206:
                file.seek(0)
                file.truncate()
            elif not str(response.headers['Content-Range']).startswith(
                    f'bytes {file.tell()}-'):
                raise DownloadError('the answer is another part of the file than the rest')
            total = file.tell() + int(length)
            etag = response.headers['ETag'] or 'W/'
            version = response.headers['Last-Modified'] if etag.startswith('W/') else etag
            with Progress(*_COLUMNS) as progress:
                bar = progress.add_task(url.rsplit('/', 1)[-1], total=total)
                for chunk in _chunks(response):
                    file.write(chunk)
                    progress.update(bar, completed=file.tell())
        if file.tell() == total:
            return
    raise DownloadError(f'the connection broke off {ATTEMPTS} times, '
                        f'the last time after {file.tell()} of {total} bytes')


def _chunks(response):
    """The bytes that come before ``response`` ends or breaks off."""
    try:
        while chunk := response.read(1 << 16):
            yield chunk
    except (OSError, HTTPException):
        return


def _check(file, size, sha256):
    if size is not None and file.tell() != size:
        raise DownloadError(f'it has {file.tell()} bytes, not {size} as published')
    if sha256 is not None:
        file.seek(0)
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
        if digest.hexdigest() != sha256:
            raise DownloadError(f'its SHA-256 is {digest.hexdigest()}, not {sha256} as published')
