"""Pickles as data: no name in one is imported, and no function of one is called.

``torch.load(weights_only=True)`` calls what it allows with whatever arguments the file holds, so
that a file can ask ``numpy.dtype`` for an address of its choice, and ``torch.Tensor`` for the
memory of others. Here a pickle becomes containers, scalars and :class:`Call`; :class:`Plain` then
makes tensors and arrays of the calls it knows, and checks every size before it allocates.
"""

import math
import pickle
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

SCALARS = (type(None), bool, int, float, str, bytes)
DEPTH = 100  # containers in one another
UNFOLDED = 10  # times the size of the file: what its tensors may take together, written out
STORAGES = {
    f'{module}.{name}Storage': dtype
    for module in ('torch', 'torch.cuda')
    for name, dtype in dict(
        Double=torch.float64,
        Float=torch.float32,
        Half=torch.float16,
        BFloat16=torch.bfloat16,
        Long=torch.int64,
        Int=torch.int32,
        Short=torch.int16,
        Char=torch.int8,
        Byte=torch.uint8,
        Bool=torch.bool,
        ComplexDouble=torch.complex128,
        ComplexFloat=torch.complex64,
    ).items()
}
STORAGES['torch.storage.UntypedStorage'] = torch.uint8


class Code(Exception):
    """A pickle names something that would have to be run."""


class Refused(ValueError):
    """A pickle is whole, but holds what no checkpoint needs."""


class Name(str):
    """A function or class that a pickle names, such as ``collections.OrderedDict``."""


class Call(dict):
    """What a pickle would call: ``name(*args)``, then given a ``state`` and entries."""

    __slots__ = ('name', 'args', 'state')

    def __init__(self, name, args):
        self.name, self.args, self.state = name, args, None


class Storage:
    """A block of the file's numbers: their dtype and a torch.UntypedStorage."""

    def __init__(self, dtype, memory):
        self.dtype, self.memory = dtype, memory


def _opcodes():
    """What ``torch.save`` writes, in protocols 2 to 4; no other way to come by an object."""
    for name in (
        'PROTO FRAME STOP MARK NONE NEWFALSE NEWTRUE BININT BININT1 BININT2 LONG1 '
        'BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 BINSTRING SHORT_BINSTRING '
        'BINBYTES SHORT_BINBYTES BINBYTES8 EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 '
        'EMPTY_LIST EMPTY_DICT BINGET LONG_BINGET BINPUT LONG_BINPUT MEMOIZE GLOBAL '
        'STACK_GLOBAL BINPERSID'
    ).split():
        code = getattr(pickle, name)[0]
        yield code, pickle._Unpickler.dispatch[code]


class Unpickler(pickle._Unpickler):
    """Gives the tree of a pickle: scalars, lists, tuples, dicts, :class:`Name`, :class:`Call`.

    Args:
        file: Opened for reading; one ``read`` must not allocate more than it holds.
        block (Callable): From the key of a block of numbers, their count and their size in bytes
            to a torch.UntypedStorage of just that length.

    Raises:
        Code: It names something unknown.
    """

    dispatch = dict(_opcodes())
    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, file, block=None):
        super().__init__(file, encoding='utf-8')
        self.block = block

    def find_class(self, module: str, name: str) -> Name:
        name = f'{module.replace("__builtin__", "builtins")}.{name}'
        if not (name in CALLS or name in TYPES or name.startswith('torch.')):
            raise Code(name)
        return Name(name)

    def persistent_load(self, pid: Any) -> Storage:
        _, dtype, key, _, count, *view = pid
        if dtype not in STORAGES or view not in ([], [None]):
            raise Refused(f'it holds a {str(dtype)[:99]}, expected dense tensors of numbers')
        dtype = STORAGES[dtype]
        return Storage(dtype, self.block(str(key), _natural(count), _itemsize(dtype)))

    def load_call(self) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        if type(name) is not Name or type(args) is not tuple:
            raise pickle.UnpicklingError('it calls what is no function')
        self.append(Call(name, args))

    dispatch[pickle.REDUCE[0]] = dispatch[pickle.NEWOBJ[0]] = load_call

    def load_build(self) -> None:
        state = self.stack.pop()
        self._top(Call).state = state

    dispatch[pickle.BUILD[0]] = load_build

    def load_append(self) -> None:
        item = self.stack.pop()
        self._top(list).append(item)

    dispatch[pickle.APPEND[0]] = load_append

    def load_appends(self) -> None:
        items = self.pop_mark()
        self._top(list).extend(items)

    dispatch[pickle.APPENDS[0]] = load_appends

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    dispatch[pickle.SETITEM[0]] = load_setitem

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    dispatch[pickle.SETITEMS[0]] = load_setitems

    def _set(self, items):
        target = self._top(dict, Call)
        for key, value in zip(items[::2], items[1::2], strict=True):
            # To hash a tuple in a million others ends the process, and large integers may be
            # chosen such that all have the same hash.
            if not (type(key) is str or type(key) in (int, bool) and abs(key) < 1 << 60):
                raise Refused(f'it holds a dict with a {type(key).__name__} as a key')
            target[key] = value

    def _top(self, *types):
        if type(self.stack[-1]) not in types:
            raise pickle.UnpicklingError(f'it changes a {type(self.stack[-1]).__name__}')
        return self.stack[-1]


class Plain:
    """Makes plain values of the tree of a pickle.

    That is: None, bool, int, float, str, bytes, list, tuple, set, dict, OrderedDict, Counter,
    torch.dtype, dense tensors, NumPy arrays and scalars of numbers and strings, and
    HistoryBuffer of such arrays.

    Args:
        size (int): Of the file, in bytes.
        device (str | torch.device): Where the tensors are to be.
    """

    def __init__(self, size: int, device: str | torch.device):
        self.device = device
        self.room = max(UNFOLDED * size, 1 << 20)
        self.made: dict[int, tuple[Any, Any]] = {}

    def __call__(self, value: Any, depth: int = 0) -> Any:
        """Raises Code where a call is of something unknown, Refused for what nobody needs."""
        kind = type(value)
        if kind in SCALARS:
            if kind is int and value.bit_length() > 256:
                raise Refused('it holds an integer of more than 256 bits')
            return value
        if depth > DEPTH:
            raise Refused(f'it is nested more than {DEPTH} times')
        if id(value) not in self.made:  # what occurs twice is one object, and is made once
            if kind in (list, tuple):
                made = kind(self(item, depth + 1) for item in value)
            elif kind is dict:
                made = {key: self(item, depth + 1) for key, item in value.items()}
            elif kind is Name:
                made = value if value in STATISTICS else _torch_dtype(value)
            elif kind is Call:
                if value.name not in CALLS:
                    raise Code(value.name)
                made = CALLS[value.name](partial(self, depth=depth + 1), value)
            else:
                raise Refused(f'it holds a {kind.__name__} for itself')
            self.made[id(value)] = value, made  # the value too, lest its id be that of another
        return self.made[id(value)][1]

    def tensor(
        self,
        storage: Storage,
        offset: int,
        size: Sequence[int],
        stride: Sequence[int],
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        dtype, nbytes = dtype or storage.dtype, storage.memory.nbytes()
        size, stride = ([*map(_natural, numbers)] for numbers in (size, stride))
        count = math.prod(size)
        last = _natural(offset) + sum((n - 1) * s for n, s in zip(size, stride, strict=True))
        if count and (last + 1) * _itemsize(dtype) > nbytes:
            raise ValueError(f'a tensor of {last + 1} numbers in {nbytes} bytes')
        self.room -= count * _itemsize(dtype)
        if self.room < 0:
            raise Refused(f'its tensors, written out, take more than {UNFOLDED} times its size')
        tensor = torch.empty(0, dtype=dtype).set_(storage.memory, offset, size, stride)
        return checked(tensor).to(self.device)


def checked(tensor: Tensor) -> Tensor:
    """``tensor``, unless its bytes are ones that its type cannot have."""
    if tensor.dtype == torch.bool and tensor.numel() and tensor.view(torch.uint8).max() > 1:
        raise ValueError('truth values that are neither true nor false')
    return tensor


def _natural(value):
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError('a size or a place that is no natural number')
    return value


def _itemsize(dtype):
    return torch.empty(0, dtype=dtype).element_size()


def _torch_dtype(name):
    dtype = getattr(torch, name.removeprefix('torch.'), None)
    if not isinstance(dtype, torch.dtype):
        raise Code(name)
    return dtype


# What the known calls stand for; ``plain`` makes plain values of their parts.


def _tensor(plain, call):
    if any(call.args[6:]):  # a conjugated or negated view
        raise Refused('it holds a tensor that is not written out')
    return plain.func.tensor(*call.args[:4])


def _tensor_v3(plain, call):
    if any(call.args[7:]):
        raise Refused('it holds a tensor that is not written out')
    return plain.func.tensor(*call.args[:4], _torch_dtype(call.args[6]))


def _other_tensor(plain, call):
    kind = call.name.split('_rebuild_')[1].replace('_', ' ')
    raise Refused(f'it holds a {kind}, expected dense tensors of numbers')


def _array_dtype(call):
    code, plain_code = call.args[0], 'b1|[iu][1248]|f[248]|c8|c16|[SU][0-9]+'
    if call.name != 'numpy.dtype' or not re.fullmatch(plain_code, code):
        raise Refused('it holds a NumPy array of other than numbers or strings')
    order = call.state[1] if call.state else '='
    return np.dtype(code).newbyteorder({'<': '<', '>': '>'}.get(order, '='))


def _array(shape, dtype, data, order='C'):
    shape = tuple(map(_natural, shape))
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f'a NumPy array of shape {shape} in {len(data)} bytes')
    array: Any = np.ndarray(shape, dtype, data if data else None, order=order).copy(order)
    if dtype.kind == 'U':
        array.tolist()  # raises ValueError, if there is no such character
    if dtype.kind == 'b' and array.size and array.view(np.uint8).max() > 1:
        raise ValueError('truth values that are neither true nor false')
    return array


def _reconstruct(plain, call):
    *_, shape, dtype, fortran, data = call.state
    return _array(shape, _array_dtype(dtype), plain(data), 'F' if fortran else 'C')


def _scalar(plain, call):
    dtype, data = call.args
    return _array((1,), _array_dtype(dtype), plain(data))[0]


def _ordered_dict(plain, call):
    if call.args:
        raise Refused('it holds an OrderedDict in the way of Python 2')
    made: Any = OrderedDict((key, plain(value)) for key, value in call.items())
    metadata = plain(call.state or {}).get('_metadata')  # versions of torch's modules
    if isinstance(metadata, dict) and all(
        isinstance(module, dict) and type(module.get('version', 1)) is int
        for module in metadata.values()
    ):
        made._metadata = metadata
    return made


def _set(plain, call):
    (items,) = call.args
    if any(type(item) not in (str, int) for item in items):
        raise Refused('it holds a set of other than strings and integers')
    return set(items)


def _bytes(plain, call):
    text, encoding = call.args or ('', 'latin1')
    if encoding != 'latin1':
        raise ValueError(f'bytes encoded as {encoding}')
    return text.encode(encoding)


def _history(plain, call):
    state = plain(call.state)
    log, count, length = (state[name] for name in ('_log_history', '_count_history', 'max_length'))
    if not all(
        isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in 'iuf'
        for array in (log, count)
    ) or len(log) != len(count):
        raise ValueError('a HistoryBuffer of other than two rows of numbers')
    return HistoryBuffer(log[-length:], count[-length:], _natural(length))


def _statistic(plain, call):
    """A HistoryBuffer names its own methods, and every new one has them anyway."""
    owner, name = call.args
    if owner != HISTORY or f'{owner}.{name}' not in STATISTICS:
        raise Code(call.name)


HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
STATISTICS = [f'{HISTORY}.{name}' for name in ('min', 'max', 'current', 'mean')]
CALLS = {
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_tensor_v3': _tensor_v3,
    'torch._utils._rebuild_parameter': lambda plain, call: plain(call.args[0]),
    'torch._utils._rebuild_parameter_with_state': lambda plain, call: plain(call.args[0]),
    # A tensor with attributes, which nobody needs.
    'torch._tensor._rebuild_from_type_v2': lambda plain, call: plain(
        Call(call.args[0], call.args[2])
    ),
    **{
        f'torch._utils._rebuild_{kind}': _other_tensor
        for kind in (
            'sparse_tensor',
            'qtensor',
            'meta_tensor_no_storage',
            'nested_tensor',
            'wrapper_subclass',
            'device_tensor_from_numpy',
            'device_tensor_from_cpu_tensor',
        )
    },
    'torch.Size': lambda plain, call: tuple(plain(call.args[0])),
    'torch.device': lambda plain, call: ':'.join(map(str, plain(call.args))),
    'collections.OrderedDict': _ordered_dict,
    'collections.Counter': lambda plain, call: Counter(plain(call.args[0])),
    'builtins.set': _set,
    'builtins.bytes': _bytes,
    '_codecs.encode': _bytes,
    'argparse.Namespace': lambda plain, call: plain(call.state),
    HISTORY: _history,
    'builtins.getattr': _statistic,
    **{
        f'numpy.{core}.multiarray.{name}': make
        for core in ('core', '_core')  # NumPy 1 and 2
        for name, make in dict(_reconstruct=_reconstruct, scalar=_scalar).items()
    },
}
TYPES = {'numpy.ndarray', 'numpy.dtype', *STATISTICS}  # named by the others
