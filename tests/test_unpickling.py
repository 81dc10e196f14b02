"""Checkpoint files made to do harm, and files changed at will: read as data, or refused."""

import logging
import pickle
import struct
import sys
import time
import zipfile
from collections import Counter, OrderedDict

import numpy as np
import pytest
import torch
from checkpoint_files import Code, Made, repickled, saved, tensor, zipped
from hypothesis import given
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer

from convmlp_backbone import ConvMLP
from convmlp_backbone.checkpoints import (
    CheckpointError,
    load_backbone,
    plain_meta,
    read,
    unwrap,
    write,
)
from convmlp_backbone.checkpoints.loading import load_from_convmlp

BACKBONE = ConvMLP(
    dict(channels=8, conv_blocks=1, dims=(8, 8, 8), mlp_blocks=(1, 1, 1), mlp_ratio=2)
)


# What a checkpoint may hold comes back as it was.


def everything():
    history = HistoryBuffer([1.0, 2.0], [1, 1])
    history.update(3.0)
    return dict(
        none=None,
        true=True,
        small=-1,
        large=1 << 200,
        real=0.5,
        text='ä\n',
        data=b'\0\xff',
        no_data=b'',
        items=[1, (2, [3])],
        set={'a', 1},
        size=torch.Size([2, 3]),
        counter=Counter({3: 1}),
        ordered=OrderedDict(a=1),
        history=history,
        empty=HistoryBuffer(),
        scalar=np.float64(0.3),
        flags=np.array([True, False]),
        names=np.array(['ä', 'b']),
        fortran=np.asfortranarray(np.arange(6).reshape(2, 3)),
        no_numbers=np.zeros((0, 3)),
        tensor=torch.arange(6.0).reshape(2, 3).t(),
        view=torch.arange(9)[4:6],
        half=torch.ones(2).half(),
        mask=torch.tensor([True]),
        complex=torch.ones(2) * 1j,
        scalar_tensor=torch.tensor(3),
        none_of_it=torch.zeros(0, 5),
        parameter=torch.nn.Parameter(torch.ones(2)),
        few=torch.zeros(1).expand(10, 10),
    )


def same(a, b):
    if isinstance(a, HistoryBuffer):
        return vars(a).keys() >= {'max_length'} and same(a.data, b.data)
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(_use_new_zipfile_serialization=False),
        dict(pickle_protocol=3),
        dict(pickle_protocol=4),
    ],
    ids=str,
)
def test_what_a_checkpoint_may_hold(options, tmp_path):
    content = everything()
    if options.get('pickle_protocol') == 4:
        del content['set']  # written by instructions of its own
    if '_use_new_zipfile_serialization' not in options:
        content['float8'] = torch.ones(2).to(torch.float8_e4m3fn).view(torch.uint8)
    torch.save(content, tmp_path / 'x.pth', **options)
    made = read(tmp_path / 'x.pth')
    assert made.keys() == content.keys()
    for name, value in content.items():
        assert same(value, made[name]), name


def test_versions_of_modules_are_kept(tmp_path):
    weights = torch.nn.BatchNorm2d(3).state_dict()
    assert read(saved(tmp_path / 'x.pth', weights))._metadata == weights._metadata
    weights._metadata = {'': dict(version='new')}
    assert not hasattr(read(saved(tmp_path / 'x.pth', weights)), '_metadata')


def test_tensors_go_where_they_are_asked_to(tmp_path):
    path = saved(tmp_path / 'x.pth', dict(x=torch.ones(2)))
    assert read(path, map_location='meta')['x'].device.type == 'meta'
    assert read(path, map_location=lambda storage, location: storage)['x'].device.type == 'cpu'


# What a file can be made to do. Each writes a file and gives words of the answer.


def x(value):
    """The pickle of dict(x=value), of one that is pickled."""
    return b'\x80\x02}X\x01\0\0\0x' + value + b's.'


def call(name, args):
    return b'c' + name.replace('.', '\n').encode() + b'\n' + args + b'R'


def text(value):
    return b'X' + len(value).to_bytes(4, 'little') + value.encode()


def changed_dtype(state):
    """An array of eight bytes, whose dtype is changed when it is there."""
    dtype = b'cnumpy\ndtype\n' + text('S8') + b'\x89\x88\x87Rq\1'
    data = b'c_codecs\nencode\n' + text('12345678') + text('latin1') + b'\x86R'
    array = (
        b'cnumpy._core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85'
        + text('b')
        + b'\x87R(K\1K\1\x85'
        + dtype
        + b'\x89'
        + data
        + b'tb'
    )
    return pickled(x(b'](' + array + b'h\1(K\3' + text('|') + state + b'tbe'))


TUPLES = b')' + b'\x85' * 300_000  # in one another
# Forty lists, each of ten times the one before.
LAUGHS = b'](]q\0' + b']('.join([b''] + [b'h\0' * 10 + b'eq\0'] * 40) + b'e'


def bomb(path):
    zipped(
        path,
        tensor([1 << 24], [1], 1 << 24),
        {'0': bytes(1 << 26)},
        compression=zipfile.ZIP_DEFLATED,
    )
    assert path.stat().st_size < 100_000


def overlapping(path):
    """Ten entries of the zip file's list that are the same megabyte."""
    zipped(path, tensor([9], [1], 9), {'0': bytes(1 << 20)})
    content = path.read_bytes()
    start = content.rindex(b'PK\1\2')
    end = content.index(b'PK\5\6')
    entry = content[start:end]
    copies = b''.join(entry.replace(b'data/0', f'data/{i}'.encode()) for i in range(10))
    tail = content[:start] + copies
    count = struct.unpack('<H', content[end + 8 : end + 10])[0] + 9
    size = struct.unpack('<L', content[end + 12 : end + 16])[0] + 9 * len(entry)
    head = content[end : end + 8] + struct.pack('<HHL', count, count, size)
    path.write_bytes(tail + head + content[end + 16 :])


def array(code, shape, data):
    return Made(
        np.empty(0).__reduce__()[0],
        np.ndarray,
        (0,),
        b'b',
        state=(1, shape, Made(np.dtype, code, False, True), False, data),
    )


def history(**state):
    return Made(
        HistoryBuffer,
        state=dict(_log_history=np.ones(2), _count_history=np.ones(2), max_length=5) | state,
    )


def put(content, **options):
    return lambda path: saved(path, dict(x=content()), **options)


def pickled(content, blocks={}):
    return lambda path: zipped(path, content, blocks)


def system(path):
    """A command, whose result is thrown away by what comes next."""
    zipped(path, b'\x80\x02(' + call('posix.system', b'X\x02\0\0\0ls\x85') + b'1}.')


ATTACKS = {
    # code
    'exec': (put(lambda: Code('/dev/null/x')), 'code (exec)'),
    'a command': (pickled(x(call('posix.system', b'X\x02\0\0\0ls\x85'))), 'code (posix.system)'),
    'a command, thrown away': (system, 'code (posix.system)'),
    'an instruction of old': (pickled(b'(X\2\0\0\0lsios\nsystem\n.'), 'damaged'),
    'an extension': (pickled(b'\x80\x02\x82\x01.'), 'damaged'),
    'getattr': (put(lambda: Made(getattr, torch.Tensor, 'backward')), 'code (getattr)'),
    'torch.load inside': (put(lambda: Made(torch.load, '/etc/passwd')), 'code (torch.serial'),
    'a class of torch': (put(lambda: torch.nn.Linear), 'code (torch.nn'),
    # memory that is not the file's
    'a tensor of memory': (put(lambda: Made(torch.Tensor, 1000)), 'code (torch.Tensor)'),
    'a storage of memory': (put(lambda: Made(torch.UntypedStorage, 8192)), 'code (torch.storage'),
    'a dtype': (put(lambda: Made(np.dtype, 'V8', False, True)), 'code (numpy.dtype)'),
    'a dtype that grows to 8 kB': (changed_dtype(b'NNNM\0\x20K\1K\0'), 'code (numpy.dtype)'),
    'a dtype that becomes one of addresses': (
        changed_dtype(b'cnumpy\ndtype\nX\2\0\0\0O8\x89\x88\x87RK\1\x85\x86NNK\x08K\x08K?'),
        'code (numpy.dtype)',
    ),
    'an array of a dtype of addresses': (put(lambda: array('O8', (1,), bytes(8))), 'NumPy array'),
    'a structured scalar as meta': (
        lambda path: saved(path, dict(meta=np.zeros(1, [('config', 'U9')])[0])),
        'NumPy array',
    ),
    'an array of more than its bytes': (put(lambda: array('f8', (1024,), bytes(8))), 'NumPy array'),
    'an array of a negative shape': (put(lambda: array('f8', (-1, -1), bytes(8))), 'no natural'),
    'an array of no characters': (put(lambda: array('U1', (1,), b'\xff' * 4)), 'damaged'),
    'an array of neither true nor false': (put(lambda: array('b1', (1,), b'\7')), 'neither true'),
    'a storage larger than its bytes': (
        pickled(tensor([1000], [1], 1000), {'0': bytes(16)}),
        'numbers are missing',
    ),
    'a storage of nothing': (pickled(tensor([4], [1], 4)), 'numbers are missing'),
    'a tensor larger than its storage': (
        pickled(tensor([1000], [1], 4), {'0': bytes(16)}),
        'a tensor of 1000 numbers in 16 bytes',
    ),
    'a tensor before its storage': (
        pickled(tensor([4], [1], 4, -4), {'0': bytes(16)}),
        'no natural number',
    ),
    'a tensor backwards': (pickled(tensor([4], [-1], 4), {'0': bytes(16)}), 'no natural number'),
    'a tensor of 2^64 numbers': (
        pickled(tensor([1 << 61, 1 << 61], [0, 0], 4), {'0': bytes(16)}),
        'written out',
    ),
    'truth values that are none': (
        pickled(tensor([4], [1], 4, storage='Bool'), {'0': b'\1\2\3\4'}),
        'neither true nor false',
    ),
    # too much memory
    'terabytes': (put(lambda: torch.zeros(1).expand(1 << 20, 1 << 20)), 'more than 10 times'),
    'many of one storage': (
        put(lambda: [torch.zeros(1).expand(1 << 17) for _ in range(99)]),
        'more than 10 times',
    ),
    'a compressed zip': (bomb, 'compressed'),
    'entries over one another': (overlapping, 'over one another'),
    'a bytearray': (
        pickled(x(call('builtins.bytearray', b'J\xff\xff\xff\x7f\x85'))),
        'code (bytearray)',
    ),
    'a text of 4 GB': (pickled(x(b'X\xff\xff\xff\xffabc')), 'damaged'),
    'a memo of 4 billion': (pickled(x(b']r\xff\xff\xff\xff')), ''),
    # too much of the processor, or of its stack
    'tuples in one another': (pickled(x(TUPLES)), 'nested more than 100'),
    'tuples in one another as a key': (
        pickled(b'\x80\x02}' + TUPLES + b'K\x01s.'),
        'a tuple as a key',
    ),
    'ten times ten times': (pickled(x(LAUGHS)), ''),
    'a list in itself': (pickled(x(b']q\0h\0a')), 'nested more than 100'),
    'keys of one hash': (
        lambda path: saved(path, dict.fromkeys([i * (2**61 - 1) for i in range(9)])),
        'as a key',
    ),
    'a long integer': (pickled(x(b'\x8a\xff' + b'\x7f' * 255)), '256 bits'),
    # classes of this process
    'a class that is changed': (
        pickled(
            b'\x80\x02cmmengine.logging.history_buffer\nHistoryBuffer\n}X\x04\0\0\0meanK\x01sb.'
        ),
        'damaged',
    ),
    'a function that is changed': (
        pickled(b'\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\0\0\0__code__K\x01sb.'),
        'damaged',
    ),
    'a statistic of a history': (
        put(lambda: history(statistics_methods={'mean': Made(getattr, str, 'upper')})),
        'code (unicode)',
    ),
    'a history of text': (put(lambda: history(_log_history=np.array(['a', 'b']))), 'two rows'),
    'a history of two lengths': (put(lambda: history(_count_history=np.ones(3))), 'two rows'),
    'a history of a negative length': (put(lambda: history(max_length=-5)), 'no natural'),
    # tensors that are none of numbers in rows
    'sparse': (put(lambda: torch.eye(3).to_sparse()), 'sparse tensor, expected dense'),
    'meta': (put(lambda: torch.ones(3, device='meta')), 'expected dense'),
    'quantised': (
        put(lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8)),
        'expected dense',
    ),
    'nested': (put(lambda: torch.nested.nested_tensor([torch.ones(2)])), 'expected dense'),
    'conjugated': (put(lambda: torch.ones(2, dtype=torch.complex64).conj()), 'not written out'),
    # other files
    'TorchScript': (lambda path: torch.jit.script(torch.nn.Linear(1, 1)).save(path), 'TorchScript'),
    'no pickle': (lambda path: zipfile.ZipFile(path, 'w').writestr('x/y', ''), 'damaged'),
}


@pytest.mark.parametrize('name', ATTACKS)
def test_attack(name, tmp_path):
    write_to, words = ATTACKS[name]
    write_to(path := tmp_path / 'x.pth')
    statistics, start = dict(HistoryBuffer._statistics_methods), time.perf_counter()
    if not words:  # strange, but no harm
        assert read(path).keys() == {'x'}
    else:
        with pytest.raises(CheckpointError) as error:
            read(path)
        message = str(error.value)
        assert any(word in message for word in words.split('|')), message
        assert str(path) in message and '\n' not in message and len(message) < 800
    assert time.perf_counter() - start < 5
    assert HistoryBuffer._statistics_methods == statistics
    assert not isinstance(vars(HistoryBuffer)['mean'], int)
    assert callable(torch._utils._rebuild_tensor_v2)


# Files changed at will


def training(path, **options):
    """A small training checkpoint as MMEngine writes it."""
    history = HistoryBuffer([0.5, 0.25], [1, 1])
    torch.save(
        dict(
            meta=dict(
                epoch=1,
                iter=8,
                seed=np.int64(5),
                cfg='x = 1',
                dataset_meta=dict(classes=('a', 'b'), palette=[(1, 2, 3), (4, 5, 6)]),
            ),
            state_dict=BACKBONE.state_dict(),
            message_hub=dict(
                log_scalars={'train/loss': history},
                resumed_keys={'train/loss': True},
                runtime_info=dict(cfg='x = 1', iter=8, best=np.float64(0.3)),
            ),
            optimizer=dict(
                state={0: dict(step=torch.tensor(8.0), exp_avg=torch.ones(3))},
                param_groups=[dict(lr=1e-3, params=[0])],
            ),
            param_schedulers=[dict(milestones=Counter({8: 1}))],
        ),
        path,
        **options,
    )


RUN = []  # what the interpreter says it runs, while it is asked


def _audit(event, args):
    if RUN and event in (
        'exec',
        'compile',
        'os.system',
        'subprocess.Popen',
        'pickle.find_class',
        'socket.connect',
        'shutil.rmtree',
        'os.remove',
        'ctypes.dlopen',
    ):
        RUN.append((event, args))


sys.addaudithook(_audit)
PLAIN = (type(None), bool, int, float, str, bytes, torch.dtype, np.generic)


def assert_plain(value, depth=0):
    assert depth < 200
    if type(value) in (dict, OrderedDict, Counter):
        for key, item in value.items():
            assert type(key) in (str, int, bool)
            assert_plain(item, depth + 1)
    elif type(value) in (list, tuple, set):
        for item in value:
            assert_plain(item, depth + 1)
    elif type(value) is HistoryBuffer:
        assert_plain(value.data, depth + 1)
    elif type(value) is torch.Tensor:
        assert value.layout == torch.strided and value.device.type == 'cpu'
        value.clone()
    elif type(value) is np.ndarray:
        assert value.dtype.kind in 'biufcSU'
        value.tolist()
    else:
        assert isinstance(value, PLAIN), type(value)


def assert_harmless(path):
    """Everything of ours that takes a checkpoint answers, in one line where it refuses."""
    RUN[:] = ['on']
    try:
        content = read(path)
        assert_plain(content)
        unwrap(content)
        meta = plain_meta(content)
        for_runner = load_from_convmlp(path)
        assert 'cfg' not in for_runner['meta'] and 'config' not in for_runner['meta']
        assert 'cfg' not in for_runner.get('message_hub', {}).get('runtime_info', {})
        assert all(
            type(name) is str for name in meta.get('dataset_meta', dict(classes=()))['classes']
        )
        before = [v.clone() for v in BACKBONE.state_dict().values()]
        try:
            load_backbone(BACKBONE, path)
        except CheckpointError:
            assert all(map(torch.equal, before, BACKBONE.state_dict().values()))
            raise
        assert all(v.isfinite().all() for v in BACKBONE.state_dict().values())
    except CheckpointError as error:
        assert str(error).isprintable()
    finally:
        run, RUN[:] = RUN[1:], []
    assert not run


@pytest.fixture(autouse=True)
def no_log(monkeypatch):
    """A handler whose stream another test has closed would compile what it prints."""
    monkeypatch.setattr(logging.root.manager, 'disable', logging.CRITICAL)


@pytest.fixture(scope='module')
def originals(tmp_path_factory):
    """Good files, by the ending of their names."""
    folder = tmp_path_factory.mktemp('originals')
    training(folder / 'zip.pth')
    training(folder / 'legacy.pth', _use_new_zipfile_serialization=False)
    training(folder / 'protocol4.pth', pickle_protocol=4)
    write(folder / 'x.safetensors', BACKBONE.state_dict(), dict(epoch=1))
    for path in folder.iterdir():
        load_backbone(BACKBONE, path)  # which also imports what it needs
        assert_harmless(path)
    return folder


def changed(content, edits):
    """``content`` with bytes put, taken away, overwritten or copied at some places."""
    content = bytearray(content)
    for kind, place, other, data in edits:
        place, other = int(place * len(content)), int(other * len(content))
        if kind == 'put':
            content[place:place] = data
        elif kind == 'take':
            del content[place : place + len(data)]
        elif kind == 'write':
            content[place : place + len(data)] = data
        else:
            content[place:place] = content[other : other + 40 * len(data)]
    return bytes(content)


CODES = [
    bytes([getattr(pickle, name)[0]])
    for name in pickle.__all__
    if name.isupper() and isinstance(getattr(pickle, name), bytes)
]
PIECES = [
    call('builtins.exec', b'X\x01\0\0\0x\x85'),
    call('torch.Tensor', b'K\x09\x85'),
    call('numpy.dtype', b'X\x02\0\0\0O8\x89\x88\x87'),
    b'cnumpy\nndarray\n',
    b'q\0',
    b'h\0',
    b'h\1',
    b'h\2',
    b'h\5',
    b'cbuiltins\ngetattr\n',
    b'\x8a\x08' + b'\xff' * 7 + b'\x7f',
    b'M\xff\xff',
    b'ctorch\nBoolStorage\n',
    b'ccollections\nOrderedDict\n)R',
    b'cmmengine.logging.history_buffer\nHistoryBuffer\n)\x81',
    b'X\x06\0\0\0config',
    b')',
    b'0',
]
EDITS = st.lists(
    st.tuples(
        st.sampled_from(['put', 'take', 'write', 'copy']),
        st.floats(0, 1),
        st.floats(0, 1),
        st.sampled_from(CODES) | st.sampled_from(PIECES) | st.binary(min_size=1, max_size=9),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.adversary
@given(name=st.sampled_from(['zip.pth', 'protocol4.pth']), edits=EDITS)
def test_pickle_changed_at_will(originals, tmp_path_factory, name, edits):
    path = tmp_path_factory.getbasetemp() / 'changed.pth'
    path.write_bytes((originals / name).read_bytes())
    assert_harmless(repickled(path, lambda content: changed(content, edits)))


@pytest.mark.adversary
@given(name=st.sampled_from(['zip.pth', 'legacy.pth', 'x.safetensors']), edits=EDITS)
def test_file_changed_at_will(originals, tmp_path_factory, name, edits):
    path = tmp_path_factory.getbasetemp() / f'changed-{name}'
    path.write_bytes(changed((originals / name).read_bytes(), edits))
    assert_harmless(path)


TENSORS = st.builds(
    lambda shape, dtype: torch.ones(shape).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(
        [
            torch.float32,
            torch.float16,
            torch.bfloat16,
            torch.int8,
            torch.bool,
            torch.complex64,
            torch.float8_e4m3fn,
        ]
    ),
)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9)
    | TENSORS
    | st.builds(np.float64, st.floats())
    | st.lists(st.integers(0, 9), max_size=3).map(np.array)
)
NAMES = (
    st.text(max_size=9)
    | st.integers(-9, 9)
    | st.sampled_from(
        [
            'meta',
            'message_hub',
            'state_dict',
            'state_dict_ema',
            'model',
            'config',
            'cfg',
            'CLASSES',
            'PALETTE',
            'dataset_meta',
            'classes',
            'palette',
            'epoch',
            'iter',
            'runtime_info',
            'log_scalars',
            'resumed_keys',
            'tokenizer.block.0.weight',
            'module.backbone.x',
        ]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(NAMES, inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.adversary
@given(content=st.dictionaries(NAMES, VALUES, max_size=5))
def test_whatever_values(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / 'values.pth'
    torch.save(content, path)
    assert_harmless(path)


@pytest.mark.adversary
@given(
    name=st.sampled_from(sorted(BACKBONE.state_dict())),
    tensor=TENSORS,
    key=st.sampled_from(['state_dict', 'state_dict_ema', 'model']),
)
def test_one_weight_of_another_kind(tmp_path_factory, name, tensor, key):
    path = tmp_path_factory.getbasetemp() / 'weight.pth'
    torch.save({key: BACKBONE.state_dict() | {name: tensor}}, path)
    assert_harmless(path)
