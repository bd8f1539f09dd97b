"""Bytes and numbers at an address, for the compiled loops of the fast path.

Numba counts references of every array that one compiled function hands to another, which costs more than what
the loops do with a byte. So they work on addresses. Whoever calls keeps the arrays alive and checks every bound:
nothing here does.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

_LITTLE = 1  # alignment: none is assumed


def _loader(llvm: Any, result: Any) -> Any:
    """An intrinsic (address, index) -> the number at address + index * its size."""

    @intrinsic  # type: ignore[untyped-decorator]
    def load(typing: Any, address: Any, index: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], llvm.as_pointer())
            value = builder.load(builder.gep(pointer, [arguments[1]]), align=_LITTLE)
            return builder.zext(value, ir.IntType(64)) if llvm == ir.IntType(8) else value

        return result(types.int64, types.int64), generate

    return load


def _storer(llvm: Any, value_type: Any) -> Any:
    """An intrinsic (address, index, value) that writes the number at address + index * its size."""

    @intrinsic  # type: ignore[untyped-decorator]
    def store(typing: Any, address: Any, index: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            pointer = builder.inttoptr(arguments[0], llvm.as_pointer())
            number = arguments[2]
            if isinstance(llvm, ir.IntType) and llvm.width < 64:
                number = builder.trunc(number, llvm)
            builder.store(number, builder.gep(pointer, [arguments[1]]), align=_LITTLE)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, value_type), generate

    return store


byte_at = _loader(ir.IntType(8), types.int64)
"""(address, offset) -> the byte, as int64."""

word_at = _loader(ir.IntType(64), types.int64)
"""(address, index) -> the int64."""

put_byte = _storer(ir.IntType(8), types.int64)
put_u32 = _storer(ir.IntType(32), types.int64)
put_i64 = _storer(ir.IntType(64), types.int64)
put_f64 = _storer(ir.DoubleType(), types.float64)


@intrinsic  # type: ignore[untyped-decorator]
def eight_bytes(typing: Any, address: Any, offset: Any) -> Any:
    """(address, offset) -> the eight bytes from there on, as uint64 little endian; at any alignment."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        start = builder.add(arguments[0], arguments[1])
        pointer = builder.inttoptr(start, ir.IntType(64).as_pointer())
        return builder.load(pointer, align=_LITTLE)

    return types.uint64(types.int64, types.int64), generate
