"""The guest's console: bytes out to a sink, typed bytes in, and what was printed so far."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import BinaryIO

from chronovisor.machine.errors import OutputLostError

KEPT_BYTES = 16 << 20
"""How much of the guest's output `text` still holds; older bytes are forgotten."""
TYPED_BYTES = 1 << 16
"""How much of the input may wait for the guest. A move or a snapshot carries no more than this."""

Sink = Callable[[bytes], object]


class Console:
    """A virtual terminal. `sink` takes the bytes that the guest prints, on the vCPU's thread.

    A console can outlive a move: the guest at the destination continues with the same console.
    """

    def __init__(self, sink: Sink | BinaryIO | None = None) -> None:
        self.occupied = ""
        """Why nobody else can type; empty if somebody can."""
        self._sink = _as_sink(sink)
        self._lock = threading.Lock()
        self._was_read = threading.Condition(self._lock)
        self._was_printed = threading.Condition(self._lock)
        self._printed = bytearray()
        self._forgotten = 0
        self._typed: deque[int] = deque()
        self._watchers: list[Callable[[], None]] = []
        self._input_watchers: list[Callable[[], None]] = []
        self.keyboard: Callable[[], AbstractContextManager[object]] = nullcontext
        """Makes the context in which input comes to the guest; a recorder has the guest paused in it."""
        self._is_read = False
        self._on_reader: Callable[[bool], None] = lambda reads: None

    def write(self, data: bytes) -> None:
        """Take what the guest prints; OutputLostError if the sink cannot write it."""
        with self._lock:
            self._printed += data
            if len(self._printed) > KEPT_BYTES:
                self._forget(len(self._printed) - KEPT_BYTES)
            self._was_printed.notify_all()
            watchers = list(self._watchers)
        if self._sink is not None:
            try:
                self._sink(data)
            except OSError as error:
                raise OutputLostError(
                    f"what the guest prints cannot be written: {error.strerror or error}"
                ) from error
        for watcher in watchers:
            watcher()

    def read(self, size: int) -> bytes:
        """Hand the guest at most `size` bytes of what was typed; nothing if no byte waits."""
        with self._lock:
            self._was_read.notify_all()
            read = bytes(self._typed.popleft() for _ in range(min(size, len(self._typed))))
        if not self._is_read:
            self._tell_reader(True)
        return read

    def type(self, data: bytes | str) -> None:
        """Type `data` for the guest to read, however much waits already. From any thread."""
        with self.keyboard():
            with self._lock:
                self._typed.extend(data.encode() if isinstance(data, str) else data)
                watchers = list(self._input_watchers)
            for watcher in watchers:
                watcher()

    def room(self, within: float = 0.0) -> int:
        """Return how many bytes can be typed until TYPED_BYTES of them wait for the guest.

        If there is no room, wait `within` seconds for the guest to read. From any thread.
        """
        with self._lock:
            self._was_read.wait_for(lambda: len(self._typed) < TYPED_BYTES, within)
            return max(0, TYPED_BYTES - len(self._typed))

    @property
    def typed(self) -> bytes:
        """What was typed and the guest has not read yet."""
        with self._lock:
            return bytes(self._typed)

    def begin_anew(self) -> None:
        """Forget what was printed and what was typed and not read: another guest gets this console."""
        with self._lock:
            self._forget(len(self._printed))
            self._typed.clear()
        self._tell_reader(False)

    def on_reader(self, told: Callable[[bool], None]) -> None:
        """Have `told` called with whether the guest reads the console: now, and if that changes.

        A guest reads it from its first attempt on. It is told on the vCPU's thread.
        """
        self._on_reader = told
        told(self._is_read)

    def _tell_reader(self, reads: bool) -> None:
        self._is_read = reads
        self._on_reader(reads)

    @property
    def printed(self) -> bytes:
        """What the guest printed so far (its last 16 MiB)."""
        with self._lock:
            return bytes(self._printed)

    @property
    def text(self) -> str:
        """What the guest printed so far, as text. Bytes that are not UTF-8 become U+FFFD."""
        return self.printed.decode(errors="replace")

    @property
    def last_line(self) -> int:
        """The position, as `since` counts, at which the line begins that was printed last."""
        with self._lock:
            # Its end may be printed already.
            return self._forgotten + self._printed.rfind(b"\n", 0, max(0, len(self._printed) - 1)) + 1

    def since(self, position: int, within: float = 0.0) -> tuple[bytes, int]:
        """Return what was printed from a position on, and the position behind it: the count of bytes that
        were printed before.

        If there is nothing, wait `within` seconds for it. What is no longer kept is left out.
        """
        with self._lock:
            self._was_printed.wait_for(lambda: self._forgotten + len(self._printed) > position, within)
            found = bytes(memoryview(self._printed)[max(0, position - self._forgotten) :])
            return found, self._forgotten + len(self._printed)

    def _forget(self, count: int) -> None:
        del self._printed[:count]
        self._forgotten += count

    def watch(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher` after each output, on the vCPU's thread. Call the function that is returned to end
        that.
        """
        return self._added(watcher, self._watchers)

    def watch_input(self, watcher: Callable[[], None]) -> Callable[[], None]:
        """Call `watcher` after input was typed, on the thread that typed it. Call the function that is
        returned to end that.
        """
        return self._added(watcher, self._input_watchers)

    def _added(self, watcher: Callable[[], None], to: list[Callable[[], None]]) -> Callable[[], None]:
        with self._lock:
            to.append(watcher)

        def stop() -> None:
            with self._lock:
                if watcher in to:
                    to.remove(watcher)

        return stop


def _as_sink(sink: Sink | BinaryIO | None) -> Sink | None:
    if sink is None or callable(sink):
        return sink
    stream = sink

    def write(data: bytes) -> None:
        stream.write(data)
        stream.flush()

    return write
