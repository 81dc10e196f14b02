"""Download a file over HTTP: afterwards it is there and complete, or it is not there at all."""

import base64
import hashlib
import re
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from ..errors import DownloadError
from ..files import whole_file

TIMEOUT = 30  # seconds without an answer
ATTEMPTS = 5  # connections, where one after the other breaks off
_COLUMNS = (TextColumn('{task.description}'), BarColumn(), DownloadColumn(), TransferSpeedColumn())


def download(
    url: str,
    path: str | Path,
    size: int | None = None,
    sha256: str | None = None,
    check: Callable[[Path], object] = lambda path: None,
) -> None:
    """Download ``url`` to ``path``, unless it is there.

    Of the processes that ask for the same file at the same time, as those of a distributed run do,
    one downloads and the others wait for it.

    Args:
        url (str): ``http://`` or ``https://`` address, with ``USER:PASSWORD@`` where need be.
        path (str | Path): Where the file is to lie; the folder is made.
        size (int, optional): Its length in bytes, if known.
        sha256 (str, optional): Its SHA-256 in hexadecimal digits, if known.
        check (Callable): Given a path, raises ValueError if the file there is another than the one
            wanted; one that lies at ``path`` is then replaced.

    Raises:
        DownloadError: No answer, an answer other than the file, or the wrong file.
    """
    from filelock import FileLock  # which torch needs; half of this package's time to import

    path = Path(path)

    def there():
        try:
            check(path)
        except (OSError, ValueError):
            return False
        return path.exists()

    if there():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{path}.lock'):
        if there():
            return
        with whole_file(path) as part:
            try:
                with open(part, 'wb') as file:
                    _receive(url, file, path.name)
                _require(part, size, sha256)
                check(part)
            except (OSError, HTTPException, ValueError) as error:
                reason = str(error) or type(error).__name__
                raise DownloadError(f'cannot download {shown(url)}: {reason}') from None


def shown(source: str | Path) -> str:
    """A path, or an address without what may be secret: its user, its password, its query."""
    if not re.match('https?://', str(source), re.IGNORECASE):
        return str(source)
    scheme, rest = str(source).split('://', 1)
    host, slash, path = re.split('[?#]', rest)[0].partition('/')
    host = host.rpartition('@')[2]
    known = re.fullmatch(r'([^:]*|\[[0-9a-fA-F:.]*\])(:[0-9]*)?', host)
    return f'{scheme}://{host}{slash}{path}' if known else f'{scheme}://...'


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _request(url):
    """The request for ``url``; a redirection elsewhere does not get the password."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition('@')
    request = Request(
        parts._replace(netloc=host, fragment='').geturl(),
        headers={'User-Agent': 'convmlp-backbone', 'Accept-Encoding': 'identity'},
    )
    if at:
        request.add_unredirected_header(
            'Authorization', f'Basic {base64.b64encode(unquote(user).encode()).decode()}'
        )
    return request


def _receive(url, file, name):
    """Write what ``url`` holds to ``file``; where the connection breaks off, go on in a new one."""
    known: dict[str, Any] = {}  # the length and version of the file of which a part is there
    trouble = 0
    while trouble < ATTEMPTS:
        request = _request(url)
        # Without a version the rest could be that of another file: then start again.
        if file.tell() and known.get('if_range'):
            request.add_header('Range', f'bytes={file.tell()}-')
            request.add_header('If-Range', known['if_range'])
        with urlopen(request, timeout=TIMEOUT) as response:
            start, end, found = _extent(response)
            if start and start != file.tell():
                raise DownloadError('the answer is another part of the file than the rest')
            if start and any(
                known.get(key) and found[key] and known[key] != found[key]
                for key in ('total', 'ETag', 'Last-Modified')
            ):
                reason = 'the file changed'
                trouble += 1
                _empty(file)  # so that no rest, asked for or not, is taken for its rest
                continue
            if not start:
                _empty(file)
                known = found
            with Progress(*_COLUMNS) as progress:
                bar = progress.add_task(name, total=known['total'])
                for chunk in _chunks(response):
                    file.write(chunk)
                    progress.update(bar, completed=file.tell())
        if file.tell() == known['total']:
            return
        if file.tell() != end or not known['if_range']:  # else a part, as it was announced
            reason = 'the connection broke off'
            trouble += 1
    raise DownloadError(f'{reason} {ATTEMPTS} times, the last time after {file.tell()} bytes')


def _empty(file):
    file.seek(0)
    file.truncate()


def _extent(response):
    """Which bytes of the file an answer brings, from where to before where, and of which file."""
    if response.headers.get_content_type() == 'text/html':
        raise DownloadError('the answer is a web page')
    encoding = response.headers['Content-Encoding'] or 'identity'
    if encoding != 'identity':
        raise DownloadError(f'the answer is encoded: {encoding}')
    found = {key: response.headers[key] for key in ('ETag', 'Last-Modified')}
    strong = found['ETag'] and not found['ETag'].startswith('W/')
    found['if_range'] = found['ETag'] if strong else found['Last-Modified']
    length = response.headers['Content-Length'] or ''
    if response.status == 206:
        part = re.fullmatch(
            r'bytes ([0-9]+)-([0-9]+)/([0-9]+)', response.headers['Content-Range'] or ''
        )
        start, last, found['total'] = map(int, part.groups()) if part else (0, -1, 0)
        if not start <= last < found['total'] or length not in ('', str(last + 1 - start)):
            raise DownloadError('the answer does not tell which part of the file it is')
        return start, last + 1, found
    if response.status != 200:
        raise DownloadError(f'the answer is HTTP {response.status}')
    if not length.isdecimal():
        raise DownloadError('the answer does not tell how long the file is')
    if not int(length):
        raise DownloadError('the answer is empty')
    found['total'] = int(length)
    return 0, found['total'], found


def _chunks(response):
    """The bytes that come before ``response`` ends or breaks off."""
    try:
        while chunk := response.read(1 << 16):
            yield chunk
    except (OSError, HTTPException):
        return


def _require(path, size, sha256):
    if size is not None and path.stat().st_size != size:
        raise DownloadError(f'it has {path.stat().st_size} bytes, not {size} as published')
    if sha256 is not None and sha256_of(path) != sha256.lower():
        raise DownloadError(f'its SHA-256 is {sha256_of(path)}, not {sha256} as published')
