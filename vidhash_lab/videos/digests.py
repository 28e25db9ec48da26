"""Digests, 12 hex digits: what tells one backbone from another, its parameters and its code.

Equal in every process of the same version of Python. A name says too little: two networks may be
called `describe`, and a folder of weights may be filled anew.
"""

import dis
import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType

import numpy as np
import torch
from torch import Tensor, nn

from vidhash_lab.data.files import DataError

PLAIN = (type(None), bool, int, float, str, bytes, torch.dtype, torch.device)


def file_digest(path: str | Path) -> str:
    """Digest the bytes of a file.

    >>> from pathlib import Path
    >>> size = Path("one.txt").write_text("the same"), Path("two.txt").write_text("the same")
    >>> file_digest("one.txt") == file_digest("two.txt")
    True
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


def digest(value: object) -> str:
    """Digest a network or function: its parameters, its code, the values that the code refers to.

    Also tensors, arrays, plain values, containers. `DataError` where no digest can be taken.

    >>> digest({"size": 32}) == digest({"size": 32}), digest([1, 2]) == digest([2, 1])
    (True, False)
    """
    found = hashlib.sha256()
    for part in _parts(value, getattr(value, "__module__", None), {}):
        found.update(len(part).to_bytes(8, "little") + part)  # the length keeps neighbours apart
    return found.hexdigest()[:12]


def _parts(value, module, seen) -> Iterator[bytes]:
    """Yield the bytes that a value is known by; functions of `module` are looked into, once."""
    yield type(value).__name__.encode()
    if isinstance(value, PLAIN):
        yield repr(value).encode()
    elif isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        flat = value.detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().tobytes()  # numpy has no bfloat16
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{value.dtype} {value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, ModuleType):
        yield value.__name__.encode()
    elif _is_of_a_library(value, module):
        yield f"{value.__module__} {value.__qualname__}".encode()
    elif id(value) in seen:
        yield str(seen[id(value)]).encode()
    else:
        if isinstance(value, FunctionType | nn.Module | type):  # these live as long as this takes
            seen[id(value)] = len(seen)
        inside = _inside(value)
        yield str(len(inside)).encode()
        for each in inside:
            yield from _parts(each, module, seen)


def _is_of_a_library(value, module):
    if isinstance(value, BuiltinFunctionType):  # bound ones, as [].append, belong to a value
        return value.__self__ is None or isinstance(value.__self__, type | ModuleType)
    named = hasattr(value, "__qualname__") and not isinstance(value, MethodType)
    return named and value.__module__ != module


def _inside(value):
    if isinstance(value, tuple | list):
        return value
    if isinstance(value, dict):
        return list(value.items())
    if isinstance(value, FunctionType):
        names = sorted(_global_names(value.__code__) & value.__globals__.keys())
        used = {name: value.__globals__[name] for name in names}
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        return _code(value.__code__), value.__defaults__, value.__kwdefaults__, cells, used
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    if isinstance(value, nn.Module):
        kinds = dict.fromkeys(type(part) for part in value.modules())
        members = (member for kind in kinds for member in vars(kind).values())
        codes = [_code(each.__code__) for each in members if isinstance(each, FunctionType)]
        written = re.sub(" at 0x[0-9a-f]+", "", repr(value))
        script = value.code if isinstance(value, torch.jit.ScriptModule) else ""
        return written, script, codes, value.state_dict()
    if isinstance(value, type):  # attributes with two underscores are Python's, but for functions
        own = vars(value).items()
        own = {k: v for k, v in own if isinstance(v, FunctionType) or not k.startswith("__")}
        return value.__qualname__, value.__bases__, own
    with suppress(Exception):  # what has no state that it would be stored with
        reduced = value.__reduce_ex__(2)
        if isinstance(reduced, tuple):
            return [list(each) if isinstance(each, Iterator) else each for each in reduced]
    raise DataError(
        f"backbone: no digest can be taken of {value!r:.80}, to which it refers, so it could not "
        "be told from another. Name it yourself: Backbone(function, 'a name')."
    )


def _code(code):
    """Tell what code does, without its file, its lines and its comments."""
    constants = [
        _code(each)
        if isinstance(each, CodeType)
        else repr(sorted(map(repr, each)) if isinstance(each, frozenset) else each)
        for each in code.co_consts
    ]
    return code.co_code, code.co_names, constants


def _global_names(code):
    names = {step.argval for step in dis.get_instructions(code) if step.opname == "LOAD_GLOBAL"}
    inner = [each for each in code.co_consts if isinstance(each, CodeType)]
    return names.union(*map(_global_names, inner))
