"""A network card, `IBM,l-lan` (LoPAR 1.1, "Interpartition Logical LAN").

The guest hands buffers to the card by H_ADD_LOGICAL_LAN_BUFFER, most of which the hypervisor answers by
leaving them in a queue. A frame goes into the smallest one that it fits into, then an entry of 16 bytes into
the guest's receive queue, then an interrupt (`lan_receiver`). Frames of the guest's come by
H_SEND_LOGICAL_LAN, in up to six pieces, and go straight from guest memory to the other end.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from chronovisor.machine.errors import MachineError
from chronovisor.machine.network import LARGEST_FRAME, Link, LinkEndedError
from chronovisor.machine.vio.device import Surroundings, VioDevice
from chronovisor.machine.vio.dma_window import Access, DmaError, Mapped
from chronovisor.machine.vio.lan_buffers import Descriptor
from chronovisor.machine.vio.lan_receiver import ENTRY_SIZE, ReceiveQueue, Receiver
from chronovisor.memory.gate import Gate, Place
from chronovisor.memory.word_queue import WordQueue
from chronovisor.papr.hcalls import LAN_HEADER, SHORTEST_FRAME, Status
from chronovisor.papr.logical_lan import CAPABILITIES, CHANGEABLE, CHECKSUMS, Attribute

PIECES: Final = 6
"""Of a frame that the guest sends."""
_PAGE: Final = 4096
_LOOK_AGAIN: Final = 0.001
"""Seconds after which the card looks for buffers while frames wait: no call tells of the first few."""
_MULTICAST: Final = 0xF_0003
"""All flags of H_MULTICAST_CTRL."""


@dataclass(frozen=True, slots=True)
class NetworkState:
    """A card as moves and snapshots carry it."""

    unit: int
    mac: bytes
    signals: bool
    window: tuple[Mapped, ...]
    buffer_list: int
    """The I/O address of the page that the guest gave for it."""
    queue: ReceiveQueue
    buffers: tuple[int, ...]
    """Descriptors, each of 64 bits."""
    dropped: int
    attributes: int = 0
    """Those that the guest has set."""


class NetworkAdapter(VioDevice):
    """The card, and the link to the other end."""

    kind = "l-lan"
    device_type = "network"
    compatible = "IBM,l-lan"

    def __init__(self, unit: int, around: Surroundings, mac: bytes, link: Link) -> None:
        super().__init__(unit, around)
        self._mac = mac
        self._link = link
        self._sending = threading.Lock()
        self._up = True
        """Whether the other end is there."""
        self._changing = threading.Lock()
        """Held around what is done to the receiver."""
        self._idle = Gate(around.idle_gate())
        """By which idle vCPUs receive frames while it is open."""
        words = self._idle.words
        words[Place.UNIT], words[Place.WINDOW], words[Place.SOURCE] = unit, self.window_number, self.source
        words[Place.DESCRIPTOR], words[Place.WATCH] = link.descriptor, link.watch
        words[Place.ALARM], words[Place.WATCHED] = link.alarm, 1
        given = WordQueue(around.lan_buffers(unit))
        self._receiver = Receiver(around.memory, self.window, given, self.interrupt)
        self._attributes = 0
        """Those that the guest has set."""
        self._asleep = False
        """Whether a buffer is to wake the card's thread, because frames wait."""
        self._closing = False
        self._thread: threading.Thread | None = None

    def properties(self) -> Mapping[str, bytes]:
        """Return what the driver asks for: the address, no filters of multicast, whether it has options."""
        found = {"local-mac-address": self._mac, "ibm,mac-address-filters": bytes(4)}
        # Drivers look whether it is there, before they ask for the card's attributes.
        return {**found, "ibm,illan-options": b""} if self._link.in_memory else found

    # Hypercalls

    def register(self, buffer_list: int, queue: int, filters: int, mac: int) -> Status:
        """H_REGISTER_LOGICAL_LAN."""
        where = Descriptor.of(queue)
        if buffer_list % _PAGE or filters % _PAGE:
            return Status.PARAMETER
        if not where.valid or not where.size or where.size % ENTRY_SIZE or where.address % ENTRY_SIZE:
            return Status.PARAMETER
        with self._receiving() as receiver:
            if receiver.queue.size:
                return Status.RESOURCE
            try:
                self.window.write(buffer_list, bytes(_PAGE))
                self.window.runs(where.address, where.size, Access.WRITE)
            except DmaError:
                return Status.PARAMETER
            receiver.buffer_list = buffer_list
            receiver.queue = ReceiveQueue(where.address, where.size, 0, True)
            self._mac = _address(mac)
            receiver.hand_over()
        return Status.SUCCESS

    def free(self) -> Status:
        """H_FREE_LOGICAL_LAN: no buffer is used any more."""
        with self._receiving() as receiver:
            receiver.unregister()
        return Status.SUCCESS

    def add_buffer(self, word: int) -> Status:
        """H_ADD_LOGICAL_LAN_BUFFER, if the queue does not take the buffer."""
        buffer = Descriptor.of(word)
        if not buffer.valid or buffer.size <= LAN_HEADER or buffer.address % 4:
            return Status.PARAMETER
        with self._receiving() as receiver:
            if not receiver.add(word):
                return Status.RESOURCE
            if self._asleep:
                # The thread looks for more of them when it comes to it.
                receiver.open()
                self._asleep = False
                self._link.interrupt()
        return Status.SUCCESS

    def free_buffer(self, size: int) -> Status:
        """H_FREE_LOGICAL_LAN_BUFFER: take a buffer of that size back."""
        with self._receiving() as receiver:
            return Status.SUCCESS if receiver.free(size) else Status.NOT_FOUND

    def send(self, words: Sequence[int], token: int) -> Status:
        """H_SEND_LOGICAL_LAN. A frame that the other end does not take is lost."""
        if token:
            # No call is ever left unfinished.
            return Status.PARAMETER
        frame: list[memoryview] = []
        try:
            for word in words[:PIECES]:
                piece = Descriptor.of(word)
                if not piece.valid:
                    break
                frame += map(self.window.view, self.window.runs(piece.address, piece.size, Access.READ))
        except DmaError:
            return Status.PARAMETER
        if not SHORTEST_FRAME <= sum(map(len, frame)) <= LARGEST_FRAME:
            return Status.PARAMETER
        with self._sending:
            self.gate.close()
            if self.gate.words[Place.CUT]:
                self._up = False
            sent = self._up and self._link.send(frame)
            self._open_gate()
            return Status.SUCCESS if sent else Status.DROPPED

    def _open_gate(self) -> None:
        """Have hypercalls send frames that the other end takes at once."""
        if self._up and not self._closing and self._link.at_rest:
            words = self.gate.words
            words[Place.DESCRIPTOR], words[Place.PREFIXED] = self._link.descriptor, self._link.prefixed
            self.gate.open()

    def multicast(self, flags: int) -> Status:
        """H_MULTICAST_CTRL: every frame for many is handed over, whatever filters the guest wishes."""
        return Status.PARAMETER if flags & ~_MULTICAST else Status.SUCCESS

    def change_address(self, mac: int) -> Status:
        """H_CHANGE_LOGICAL_LAN_MAC."""
        with self._receiving():
            self._mac = _address(mac)
        return Status.SUCCESS

    def change_attributes(self, clear: int, attributes: int) -> int:
        """H_ILLAN_ATTRIBUTES: clear some, set others; return those that there are then."""
        if not self._link.in_memory:
            return 0
        with self._receiving():
            self._set_attributes(self._attributes & ~clear | attributes & CHANGEABLE)
        return self._attributes | CAPABILITIES

    def _set_attributes(self, attributes: int) -> None:
        self._attributes, receiver = attributes, self._receiver
        receiver.checked = attributes & CHECKSUMS == CHECKSUMS
        receiver.merges = receiver.checked and bool(attributes & Attribute.LARGE)

    # Frames that come

    @contextmanager
    def _receiving(self) -> Iterator[Receiver]:
        """Have the receiver for the calling thread alone; at other times idle vCPUs may receive frames."""
        with self._changing:
            idle, receiver = self._idle, self._receiver
            idle.close()
            receiver.take_back(idle.words)
            try:
                yield receiver
            finally:
                if not (idle.words[Place.WATCHED] or idle.words[Place.LISTENER]):
                    self._link.listen()
                    idle.words[Place.WATCHED] = 1
                listens = self._up and not self._closing and self._link.begins_with_size
                if listens and receiver.lend(idle.words):
                    idle.words[Place.ADDRESS] = int.from_bytes(self._mac, "big")
                    idle.open()

    def _listen(self) -> None:
        link, receiver = self._link, self._receiver
        try:
            while not self._closing:
                seconds = _LOOK_AGAIN if receiver.going and receiver.waits else None
                has_come = False
                if receiver.is_full:
                    link.wait(seconds)
                else:
                    has_come = link.await_frames(seconds)
                with self._receiving():
                    frames = link.read() if has_come else ()
                    receiver.hand_over([frame for frame in frames if self._is_for_guest(frame)])
                    self._asleep = receiver.waits
        except LinkEndedError as error:
            with self._sending:
                self._up = False
                self.gate.close()
            with self._receiving():
                # No vCPU listens any more.
                pass
            self.around.tell(f"network {self.unit:x}: {error}; the guest goes on without it")

    def _is_for_guest(self, frame: memoryview) -> bool:
        if len(frame) < SHORTEST_FRAME:
            return False
        return bool(frame[0] & 1) or frame[: len(self._mac)] == self._mac

    # Its life

    def reset(self) -> None:
        """Be as when the machine is switched on; the link stays."""
        super().reset()
        with self._receiving() as receiver:
            receiver.unregister()
            self._set_attributes(0)

    def pause(self) -> None:
        """Hand over no frame until `resume`."""
        with self._receiving() as receiver:
            receiver.going = False

    def resume(self) -> None:
        """Hand over what comes."""
        with self._receiving() as receiver:
            receiver.going = True
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._listen, name=f"network {self.unit:x}", daemon=True
                )
                self._thread.start()
            receiver.hand_over()
        # While it is paused the thread may wait for this alone.
        self._link.interrupt()

    def take(self) -> None:
        """Nothing: each guest has a link of its own."""

    def flush(self) -> None:
        """Nothing is kept here."""

    def give_up(self) -> None:
        """Nothing, as for `take`."""

    def check_unchanged(self, state: NetworkState) -> None:
        """Nothing outside the guest is its own."""

    def describe(self) -> str:
        """Return what it is, for people."""
        return "a network"

    def close(self) -> None:
        """End the link."""
        if self._closing:
            return
        with self._sending:
            self._closing = True
            self.gate.close()
        with self._receiving():
            while self._idle.words[Place.LISTENER]:
                time.sleep(0)
        self._link.interrupt()
        if self._thread is not None:
            self._thread.join()
        self._link.close()

    def save(self) -> NetworkState:
        """Return its state, while it is paused."""
        receiver = self._receiver
        return NetworkState(
            self.unit,
            self._mac,
            self.signals,
            self.window.save(),
            receiver.buffer_list,
            receiver.queue,
            receiver.buffers(),
            receiver.dropped,
            self._attributes,
        )

    def load(self, state: NetworkState) -> None:
        """Go on from a saved state; ValueError if it makes no sense."""
        if not isinstance(state, NetworkState):
            raise MachineError("a network is attached here in the place of another device of the guest's")
        if state.attributes and not self._link.in_memory:
            raise MachineError(
                "the guest leaves checksums to its network, as passt lets it: it cannot have a tap device"
            )
        address, size, following, _ = state.queue
        in_entries = not any(number % ENTRY_SIZE for number in (address, size, following))
        is_queue = in_entries and following < max(size, 1)
        if not is_queue or len(state.mac) != len(self._mac) or state.attributes & ~CHANGEABLE:
            raise ValueError("a network's state makes no sense")
        with self._receiving() as receiver:
            receiver.unregister()
            self.window.load(state.window)
            self._mac, self.signals, receiver.dropped = state.mac, state.signals, state.dropped
            receiver.buffer_list, receiver.queue = state.buffer_list, state.queue
            self._set_attributes(state.attributes)
        for word in state.buffers:
            if self.add_buffer(word) != Status.SUCCESS:
                raise ValueError(f"a network's buffer {word:#x} makes no sense")


def _address(word: int) -> bytes:
    return (word & ((1 << 48) - 1)).to_bytes(6, "big")
