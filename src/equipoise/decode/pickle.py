"""Pickles, of which only plain values are built: a pickle is a program, and this runs what of it can do no harm.

What a pickle calls by name is looked up in a table of the caller's and nowhere else; nothing is imported. So a pickle
makes what the table makes, beside numbers, texts, lists, tuples and dicts, and no more of it than it has steps.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import IO, Any

from equipoise.errors import FileFormatError, shown

__all__ = ["Unpickler"]


class Unpickler:
    """Reads pickles, one after the other, from a stream.

    Parameters
    ----------
    stream : binary stream
    size : int
        Bytes of the stream.
    name : str
        Where it comes from, for errors.
    names : mapping of str to anything
        What a name in the pickle stands for; what is callable may be called, with what the pickle has built.
    persistent : callable
        Returns what stands for something that is kept beside the pickle.
    most_steps : int
        Over all pickles of the stream.
    """

    def __init__(
        self,
        stream: IO[bytes],
        size: int,
        name: str,
        names: Mapping[str, Any],
        persistent: Callable[[Any], Any],
        most_steps: int,
    ) -> None:
        self.stream, self.size, self.name = stream, size, name
        self.names, self.persistent, self.steps_left = names, persistent, most_steps
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """Return what the next pickle builds.

        Raises
        ------
        FileFormatError
            If it is damaged, takes too many steps, or names what the table does not have.
        """
        self.stack, self.marks, self.memo = [], [], {}
        take, steps = self.stream.read, STEPS
        try:
            for _ in range(self.steps_left):
                sign = take(1)
                if sign == STOP:
                    return self.stack.pop()
                steps[sign](self)
                self.steps_left -= 1
        except FileFormatError:
            raise
        except Exception as error:  # a step that does not fit the stack may raise anything
            raise FileFormatError(f"{self.name} is truncated or damaged. Copy or write it again.") from error
        raise FileFormatError(f"{self.name} holds too many values beside its tensors; save counts as tensors.")

    def take(self, size: int) -> bytes:
        """Return the next bytes, without asking for more than there are."""
        if size > self.size - self.stream.tell():
            raise EOFError
        return self.stream.read(size)

    def pop_mark(self) -> list[Any]:
        """Return what was pushed since the last mark, and take it off the stack."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def find(self, module: str, name: str) -> Any:
        """Return what a name stands for."""
        known = f"{module}.{name}"
        if known not in self.names:
            raise FileFormatError(
                f"{self.name} holds {shown(known)[1:-1]}, which is not loaded because unpickling runs code; dense "
                "tensors, numbers, texts, lists and dicts are. Save the counts alone: torch.save(counts, path)."
            )
        return self.names[known]


def _number(size: int, signed: bool = False) -> Callable[[Unpickler], int]:
    return lambda pickle: int.from_bytes(pickle.take(size), "little", signed=signed)


def _push(read: Callable[[Unpickler], Any]) -> Callable[[Unpickler], None]:
    return lambda pickle: pickle.stack.append(read(pickle))


def _text(size: int) -> Callable[[Unpickler], str]:
    length = _number(size)
    return lambda pickle: pickle.take(length(pickle)).decode()


def _data(size: int) -> Callable[[Unpickler], bytes]:
    length = _number(size)
    return lambda pickle: pickle.take(length(pickle))


def _whole(pickle: Unpickler) -> int:
    length = pickle.take(1)[0]
    if length > 8:
        raise FileFormatError(f"{pickle.name} holds a whole number of more than 64 bits; no count is so large.")
    return int.from_bytes(pickle.take(length), "little", signed=True)


def _mark(pickle: Unpickler) -> None:
    pickle.marks.append(len(pickle.stack))


def _tuple(length: int) -> Callable[[Unpickler], None]:
    def step(pickle: Unpickler) -> None:
        """Make one tuple of the last values."""
        start = len(pickle.stack) - length
        if start < 0:
            raise IndexError
        pickle.stack[start:] = [tuple(pickle.stack[start:])]

    return step


def _append(pickle: Unpickler, items: list[Any]) -> None:
    target = pickle.stack[-1]
    if type(target) is not list:
        raise TypeError
    target.extend(items)


def _set(pickle: Unpickler, items: list[Any]) -> None:
    target = pickle.stack[-1]
    if type(target) is not dict:
        raise TypeError
    for key, value in zip(items[::2], items[1::2], strict=True):
        if type(key) not in (str, int):
            raise TypeError
        target[key] = value


def _set_one(pickle: Unpickler) -> None:
    value, key = pickle.stack.pop(), pickle.stack.pop()
    _set(pickle, [key, value])


def _keep(number: Callable[[Unpickler], int]) -> Callable[[Unpickler], None]:
    def step(pickle: Unpickler) -> None:
        """Keep the last value under its number."""
        pickle.memo[number(pickle)] = pickle.stack[-1]

    return step


def _line(pickle: Unpickler) -> str:
    return pickle.stream.readline(1 << 10).rstrip(b"\n").decode()


def _find_on_stack(pickle: Unpickler) -> Any:
    name, module = pickle.stack.pop(), pickle.stack.pop()
    return pickle.find(module, name)


def _call(pickle: Unpickler) -> Any:
    arguments, function = pickle.stack.pop(), pickle.stack.pop()
    return function(*arguments)


STOP = b"."
STEPS: dict[bytes, Callable[[Unpickler], Any]] = {
    b"\x80": lambda pickle: pickle.take(1),  # protocol
    b"\x95": lambda pickle: pickle.take(8),  # frame
    b"(": _mark,
    b"0": lambda pickle: pickle.stack.pop(),
    b"1": Unpickler.pop_mark,
    b"N": _push(lambda _: None),
    b"\x88": _push(lambda _: True),
    b"\x89": _push(lambda _: False),
    b"K": _push(_number(1)),
    b"M": _push(_number(2)),
    b"J": _push(_number(4, signed=True)),
    b"\x8a": _push(_whole),
    b"G": _push(lambda pickle: struct.unpack(">d", pickle.take(8))[0]),
    b"\x8c": _push(_text(1)),
    b"X": _push(_text(4)),
    b"\x8d": _push(_text(8)),
    b"C": _push(_data(1)),
    b"B": _push(_data(4)),
    b"\x8e": _push(_data(8)),
    b"]": _push(lambda _: []),
    b"}": _push(lambda _: {}),
    b")": _push(lambda _: ()),
    b"\x85": _tuple(1),
    b"\x86": _tuple(2),
    b"\x87": _tuple(3),
    b"t": lambda pickle: pickle.stack.append(tuple(pickle.pop_mark())),
    b"a": lambda pickle: _append(pickle, [pickle.stack.pop()]),
    b"e": lambda pickle: _append(pickle, pickle.pop_mark()),
    b"s": _set_one,
    b"u": lambda pickle: _set(pickle, pickle.pop_mark()),
    b"q": _keep(_number(1)),
    b"r": _keep(_number(4)),
    b"\x94": _keep(lambda pickle: len(pickle.memo)),
    b"h": _push(lambda pickle: pickle.memo[pickle.take(1)[0]]),
    b"j": _push(lambda pickle: pickle.memo[int.from_bytes(pickle.take(4), "little")]),
    b"c": _push(lambda pickle: pickle.find(_line(pickle), _line(pickle))),
    b"\x93": _push(_find_on_stack),
    b"R": _push(_call),
    b"b": lambda pickle: pickle.stack.pop(),  # attributes of a dict, which say nothing of what is in it
    b"Q": _push(lambda pickle: pickle.persistent(pickle.stack.pop())),
}
"""What each sign of a pickle does, of all those that torch writes for plain values."""
