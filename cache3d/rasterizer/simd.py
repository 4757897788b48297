"""Eight float32 as one value inside a kernel.

LLVM's auto-vectorizer gives up silently (short loops, possible aliasing), and then a kernel is five times slower. With
a vector type an operation on lanes is one instruction where the processor has eight lanes, and LLVM splits it where it
has four. Works on every target.

Inside a kernel: ``x = load(plane, at)``; ``+ - *`` and comparisons between lanes and with float32; ``&`` of masks;
`select`, `minimum`, `maximum`, `reduce_add`, `exp2`, `iota`; ``store(plane, at, x)``. Nothing checks bounds.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature
from numba.extending import intrinsic as numba_intrinsic
from numba.extending import lower_builtin, models, register_model

WIDTH = 8

_FLOAT, _INT = ir.FloatType(), ir.IntType(32)
_FLOATS, _INTS, _BITS = (ir.VectorType(kind, WIDTH) for kind in (_FLOAT, _INT, ir.IntType(1)))


class _Lanes(types.Type):
    """Eight float32, or the eight truth values of a comparison."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)


lanes, mask = _Lanes("lanes"), _Lanes("mask")


class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: _Lanes) -> None:
        super().__init__(manager, kind, _FLOATS if kind is lanes or kind.name == "lanes" else _BITS)


register_model(_Lanes)(_LanesModel)


def intrinsic(generator: Callable[..., Any]) -> Any:
    """Numba's decorator, for type checkers: kernels call the result without its first parameter."""
    return numba_intrinsic(generator)


def _all_lanes(builder: Any, value: Any) -> Any:
    """The same value in every lane; lanes stay as they are."""
    if isinstance(value.type, ir.VectorType):
        return value
    kind = ir.VectorType(value.type, WIDTH)
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), value, _INT(0))
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), ir.Constant(_INTS, [0] * WIDTH))


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_FLOATS, [float(np.float32(value))] * WIDTH)


def _operator(function: Any, result: _Lanes, generate: Callable[[Any, Any, Any], Any]) -> None:
    """Define a Python operator for lanes, and for lanes with a float32."""
    scalar = types.float32
    pairs = [(mask, mask)] if function is operator.and_ else [(lanes, lanes), (lanes, scalar), (scalar, lanes)]

    class Template(ConcreteTemplate):
        cases = [signature(result, *pair) for pair in pairs]  # noqa: RUF012 - Numba's way

    infer_global(function)(Template)  # pyright: ignore[reportOptionalCall] (Numba's stubs)

    def lower(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ARG001 - Numba's signature
        return generate(builder, *(_all_lanes(builder, value) for value in arguments))

    for pair in pairs:
        lower_builtin(function, *pair)(lower)


_operator(operator.add, lanes, lambda builder, a, b: builder.fadd(a, b))
_operator(operator.sub, lanes, lambda builder, a, b: builder.fsub(a, b))
_operator(operator.mul, lanes, lambda builder, a, b: builder.fmul(a, b))
_operator(operator.truediv, lanes, lambda builder, a, b: builder.fdiv(a, b))
_operator(operator.and_, mask, lambda builder, a, b: builder.and_(a, b))
for _function, _sign in ((operator.gt, ">"), (operator.ge, ">="), (operator.le, "<=")):
    # Ordered: a comparison with NaN is false, which the kernels rely on.
    _operator(_function, mask, lambda builder, a, b, sign=_sign: builder.fcmp_ordered(sign, a, b))


def _element(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    """Pointer to eight consecutive floats of a one-dimensional array."""
    array = context.make_array(sig.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(array.data, [arguments[1]]), _FLOATS.as_pointer())


@intrinsic
def load(typing_context: Any, array: Any, at: Any) -> Any:  # noqa: ARG001
    """``array[at : at + 8]``; the array is contiguous float32 with one axis."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        # Rows begin anywhere: no more than the alignment of a float is promised.
        return builder.load(_element(context, builder, sig, arguments), align=4)

    return lanes(array, types.intp), generate


@intrinsic
def store(typing_context: Any, array: Any, at: Any, value: Any) -> Any:  # noqa: ARG001
    """Write ``array[at : at + 8]``."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _element(context, builder, sig, arguments), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), generate


@intrinsic
def iota(typing_context: Any) -> Any:  # noqa: ARG001
    """0, 1, ... 7."""
    return lanes(), lambda context, builder, sig, arguments: ir.Constant(_FLOATS, [float(k) for k in range(WIDTH)])  # noqa: ARG005


@intrinsic
def splat(typing_context: Any, value: Any) -> Any:  # noqa: ARG001
    """One float32 in every lane."""
    return lanes(types.float32), lambda context, builder, sig, arguments: _all_lanes(builder, arguments[0])  # noqa: ARG005


@intrinsic
def select(typing_context: Any, where: Any, yes: Any, no: Any) -> Any:  # noqa: ARG001
    """``yes`` where the mask holds, else ``no``."""
    return lanes(mask, lanes, lanes), lambda context, builder, sig, arguments: builder.select(*arguments)  # noqa: ARG005


@intrinsic
def minimum(typing_context: Any, a: Any, b: Any) -> Any:  # noqa: ARG001
    """Minimum; of NaN and a number ``b``."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ARG001
        a, b = arguments
        return builder.select(builder.fcmp_ordered("<", a, b), a, b)

    return lanes(lanes, lanes), generate


@intrinsic
def reduce_add(typing_context: Any, value: Any) -> Any:  # noqa: ARG001
    """Sum of the lanes, always in the same order."""

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ARG001
        value = arguments[0]
        for step in (4, 2, 1):
            moved = ir.Constant(_INTS, [(k + step) % WIDTH for k in range(WIDTH)])
            value = builder.fadd(value, builder.shuffle_vector(value, value, moved))
        return builder.extract_element(value, _INT(0))

    return types.float32(lanes), generate


@intrinsic
def exp2(typing_context: Any, power: Any) -> Any:  # noqa: ARG001
    """2 ** power for powers up to 0 in float32, relative error 2e-7.

    Clamped at 2^-32: smaller weights are invisible, and would only produce slow denormals.
    """
    # Interpolation at the Chebyshev nodes of [-1/2, 1/2], highest power first.
    degrees = (0.00133908634, 0.00967603192, 0.0555035711, 0.240221075, 0.693147188, 1.00000008)

    def generate(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:  # noqa: ARG001
        t = arguments[0]
        t = builder.select(builder.fcmp_ordered(">", t, _constant(-32.0)), t, _constant(-32.0))
        # Conversion cuts towards 0, so that half less rounds a power of 0 or less to the nearest.
        whole = builder.fptosi(builder.fsub(t, _constant(0.5)), _INTS)
        f = builder.fsub(t, builder.sitofp(whole, _FLOATS))
        p = _constant(degrees[0])
        for degree in degrees[1:]:
            p = builder.fadd(builder.fmul(p, f), _constant(degree))
        # 2 ** whole, written as the exponent of a float.
        bits = builder.shl(builder.add(whole, ir.Constant(_INTS, [127] * WIDTH)), ir.Constant(_INTS, [23] * WIDTH))
        return builder.fmul(p, builder.bitcast(bits, _FLOATS))

    return lanes(lanes), generate
