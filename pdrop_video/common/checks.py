"""What every door asks of a caller's values: one small set of checks, each of which gives the value in its plain form.

Knows plain Python values and their look-alikes (NumPy's numbers, paths). Refuses to know tensors, models and what a
value is for: the caller says its name and its bounds.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set, Sized
from typing import Any, TypeVar

from ..errors import ConfigError

Kind = TypeVar("Kind")
_SHOWN = 80


def shown(value: object) -> str:
    """A value as a message shows it: its repr, cut to a readable length, and safe for any terminal."""
    try:
        said = repr(value)
    except Exception:  # whatever a stranger's __repr__ does, the caller is owed the message
        said = f"a {type(value).__name__}"
    said = said.encode("utf-8", "backslashreplace").decode()
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."


def whole(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """A whole number within bounds; NumPy's count, floats and bools do not."""
    bounds = f"a whole number from {least:,}" + ("" if most is None else f" to {most:,}")
    refused = ConfigError(f"{name} is {shown(value)}; expected {bounds}.")
    if isinstance(value, bool) or type(value).__name__ in ("bool", "bool_", "Tensor"):
        raise refused
    try:
        number = operator.index(value)
    except TypeError:
        raise refused from None
    if number < least or (most is not None and number > most):
        raise refused
    return number


def real(name: str, value: Any, least: float = -math.inf, most: float = math.inf, *, above: bool = False) -> float:
    """A finite number from `least` (or above it) to `most`."""
    sort = "a finite number" if math.isinf(least) and math.isinf(most) else "a number"
    low = "" if math.isinf(least) else f" {'above' if above else 'from'} {least:g}"
    high = "" if math.isinf(most) else f" {'up ' if not low or above else ''}to {most:g}"
    refused = ConfigError(f"{name} is {shown(value)}; expected {sort}{low}{high}.")
    if isinstance(value, bool | str | bytes) or not (hasattr(value, "__float__") or hasattr(value, "__index__")):
        raise refused
    if getattr(value, "ndim", 0) or type(value).__name__ in ("bool", "bool_", "Tensor", "timedelta64", "datetime64"):
        raise refused
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise refused from None
    if not math.isfinite(number) or number < least or number > most or (above and number == least):
        raise refused
    return number


def share(name: str, value: Any) -> float:
    """A share in (0, 1]."""
    try:
        return real(name, value, 0, 1, above=True)
    except ConfigError:
        raise ConfigError(f"{name} is {shown(value)}; expected a share in (0, 1], for example 0.5.") from None


def switch(name: str, value: Any) -> bool:
    """True or False, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} is {shown(value)}; expected True or False.")
    return value


def text(name: str, value: Any, *, empty: bool = False) -> str:
    """Text that can be encoded; some of it, unless `empty` is allowed."""
    if not isinstance(value, str) or not (empty or value.strip()):
        raise ConfigError(f"{name} is {shown(value)}; expected {'text' if empty else 'some text'}.")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"{name} is {shown(value)}, which has half of a character (U+{ord(value[error.start]):04X}) at position "
            f"{error.start}; expected text that UTF-8 can write. Decode its bytes with the encoding they have."
        ) from None
    return str(value)  # of NumPy, a plain one


def texts(name: str, values: Any, *, least: int = 1) -> list[str]:
    """A list of texts from any iterable of them that is not itself one text."""
    one = isinstance(values, str | bytes) or getattr(values, "ndim", None) == 0  # an array without an axis
    if one or not isinstance(values, Iterable):
        raise ConfigError(f"{name} is {shown(values)}; expected a list of texts.")
    listed = [text(f"each of {name}", each) for each in values]
    if len(listed) < least:
        raise ConfigError(f"{name} is {shown(values)}; expected a list of {least} text{'s'[: least != 1]} or more.")
    return listed


def several(name: str, values: Any, each: Callable[[str, Any], Kind], most: int = 4096) -> tuple[Kind, ...]:
    """A sequence or an array of values that `each` checks, in an order that means something."""
    try:
        count = len(values) if isinstance(values, Sized) and isinstance(values, Iterable) else None
    except TypeError:  # an array without an axis
        count = None
    if count is None or count > most or isinstance(values, str | bytes | Mapping | Set):
        bound = f" of at most {most:,}" if count is not None and count > most else ""
        raise ConfigError(f"{name} is {shown(values)}; expected a list of values{bound}, such as (a, b).")
    return tuple(each(f"each of {name}", value) for value in values)


def choice(name: str, value: Any, options: Sequence[Any]) -> Any:
    """One of a few values."""
    if not isinstance(value, str) or value not in options:
        raise ConfigError(f"{name} is {shown(value)}; choose {' or '.join(map(repr, options))}.")
    return value


def instance(name: str, value: Any, kind: type[Kind], make: str) -> Kind:
    """An object of a class; `make` says what to write instead."""
    if not isinstance(value, kind):
        raise ConfigError(f"{name} is {shown(value)}; expected a {kind.__name__}: {make}.")
    return value


def path(name: str, value: Any) -> str:
    """A path that a file system can take."""
    try:
        said = os.fspath(value)
    except TypeError:
        said = None
    if not isinstance(said, str) or not said:
        raise ConfigError(f"{name} is {shown(value)}; expected a path.")
    if "\0" in said:
        raise ConfigError(f"{name} is {shown(value)}, which has a NUL character; expected a path.")
    try:
        os.fsencode(said)  # a name of undecodable bytes, as Python reads it, is one
    except UnicodeEncodeError:
        raise ConfigError(f"{name} is {shown(value)}, which no file system can write; expected a path.") from None
    return said
