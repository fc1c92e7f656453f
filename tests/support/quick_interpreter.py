"""Makes Triton's interpreter quicker, with the same results: what is the same each time is done once.

Before a kernel, and again before each function that the kernel calls, the interpreter replaces what it finds
in `triton.language`, which takes a millisecond: a third of the time of our kernels. Within a launch all but
the first time change nothing. And it writes down the table of NumPy's dtypes each time it needs one.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any


class _NothingToRestore:
    def restore(self) -> None:
        pass


def install() -> None:
    """From now on, in this process; a second call changes nothing."""
    import triton.language as tl  # noqa: PLC0415
    from triton.runtime import interpreter  # noqa: PLC0415

    redirect: Callable[[Callable[..., Any]], Any] = interpreter._patch_lang
    if redirect.__module__ == __name__:
        return
    redirected: set[str] = set()  # modules, while a launch runs

    @functools.cache
    def seen_by(fn: Callable[..., Any]) -> frozenset[str]:
        modules = filter(inspect.ismodule, fn.__globals__.values())
        return frozenset(each.__name__ for each in modules if each in (tl, tl.core))

    def once_a_launch(fn: Callable[..., Any]) -> Any:
        seen = seen_by(fn)
        if seen and seen <= redirected:
            return _NothingToRestore()
        scope = redirect(fn)
        if not redirected:  # of the kernel itself: what it calls does not restore
            restore = scope.restore

            def restore_and_forget() -> None:
                redirected.clear()
                restore()

            scope.restore = restore_and_forget
        redirected.update(seen)
        return scope

    look_up: Callable[[Any], Any] = interpreter._get_np_dtype
    looked_up = functools.cache(look_up)

    def dtype_of(triton_type: Any) -> Any:
        element = triton_type.element_ty if isinstance(triton_type, tl.block_type) else triton_type
        return look_up(element) if isinstance(element, tl.pointer_type) else looked_up(element)

    builder = interpreter.interpreter_builder
    builder.options = dataclasses.replace(builder.options, sanitize_overflow=False)
    interpreter._patch_lang = once_a_launch
    interpreter._get_np_dtype = dtype_of
