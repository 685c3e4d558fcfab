"""Streams without sockets, and the messages of a whole move."""

from __future__ import annotations

from collections.abc import Sequence

from chronovisor.kvm.structures import Regs, Sregs
from chronovisor.machine.interrupt_sources import SourceState
from chronovisor.machine.machine_state import MachineState
from chronovisor.machine.services import Translation
from chronovisor.machine.sizes import Topology
from chronovisor.machine.vcpu_state import CARRIED, VcpuState
from chronovisor.machine.vio.crq import Queue
from chronovisor.machine.vio.dma_window import Mapped
from chronovisor.machine.vio.lan import NetworkState
from chronovisor.machine.vio.lan_receiver import ReceiveQueue
from chronovisor.machine.vio.vscsi import DiskState
from chronovisor.machine.wall_clock import TimeOfDay
from chronovisor.memory import PAGE_SIZE, GuestMemory
from chronovisor.migration.errors import StreamError
from chronovisor.migration.messages import Commit, Measure, Message, Offer, State
from chronovisor.migration.stream import MAXIMUM_STATE, Header, Reader, Writer
from chronovisor.timebase.handover import Exchange, IdealInterval, Sample, plan
from chronovisor.timebase.history import AwayClock, History, Hop, HopKind
from chronovisor.timebase.policy import CATCH_UP, FREEZE, TimePolicy
from chronovisor.timebase.types import FREQUENCY, GuestTime, HostTime, Offset, Ticks

MEMORY = 4 * PAGE_SIZE + (1 << 20)
_LATER = ("ICP_STATE",)
"""Registers that came after the first kept streams."""
HEADER = Header(MEMORY, 2, 1)


class BytesPipe:
    """What is written can be read."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = bytearray(data)
        self.at = 0
        self.largest = 0

    def read_into(self, view: memoryview) -> None:
        self.largest = max(self.largest, len(view))
        piece = self.data[self.at : self.at + len(view)]
        if len(piece) < len(view):
            raise StreamError("the stream ends")
        view[:] = piece
        self.at += len(view)

    def write(self, pieces: Sequence[bytes | memoryview]) -> None:
        for piece in pieces:
            self.data += piece


def vcpu_state(number: int = 0, value: int = 0x0123456789ABCDEF) -> VcpuState:
    # The kept streams have the values that these numbers give: registers that came later come last.
    numbered = sorted(CARRIED, key=lambda register: register.name in _LATER)
    one_regs = {r.name: (value * (n + 1)) & ((1 << (8 * r.size)) - 1) for n, r in enumerate(numbered)}
    regs = Regs(pc=value, gpr=[(value + n) & ((1 << 64) - 1) for n in range(32)])
    return VcpuState(number, regs, Sregs(0x4E1200, 5, [(1, 2), (3, 4)]), one_regs, value)


def offer(**changed: object) -> Offer:
    facts: dict[str, object] = {
        "move": "0123abcd",
        "clock": "real time",
        "frequency": FREQUENCY,
        "origin": 1 << 63,
        "pvr": 0x4E1200,
        "dec_bits": 32,
        "topology": Topology(2, 1),
        "memory_size": MEMORY,
        "name": "a guest of some name",
        "guest_time": GuestTime((1 << 64) - 5),
        "limit": Ticks(1 << 23),
        "registers": (CARRIED[0].id, CARRIED[-1].id),
        "sregs": Sregs(0x4E1200, 5, [(1, 2)]),
        "token": b"a secret",
        "devices": (DISK.unit, NETWORK.unit),
    }
    return Offer(**(facts | changed))  # type: ignore[arg-type]


TRANSLATION = Translation(3, (1 << 63) | 0x8000C)
SOURCES = (SourceState(0x1100, 1 << 41),)
DISK = DiskState(
    0x7100_0010,
    1 << 40,
    False,
    True,
    (Mapped(1, (1, (1 << 64) - 1)), Mapped(65535, (3,))),
    Queue(4096, 65536, 16),
    1_700_000_000_123_456_789,
)
NETWORK = NetworkState(
    0x7100_0020,
    b"\x52\x54\x00abc",
    True,
    (Mapped(7, (5,)),),
    0x3000,
    ReceiveQueue(0x5000, 0x100, 0x40, True),
    (1 << 63, 3 << 62),
    9,
)


def state(memory: GuestMemory, runs: list[tuple[int, int]]) -> State:
    return State(
        MachineState(
            (False, True),
            TimeOfDay(GuestTime(3), Ticks(-7)),
            (),
            history(),
            TRANSLATION,
            SOURCES,
            False,
            b"nvram",
            (True, False),
            (DISK, NETWORK),
        ),
        (vcpu_state(0), vcpu_state(1, 5)),
        tuple((addr, memory.view[addr : addr + size]) for addr, size in runs),
        b"typed",
    )


def history() -> History:
    lived = History((1 << 64) - 1, folded=2, folded_elapsed_ticks=1 << 70, folded_counted_ticks=-1)
    sample = Sample(GuestTime(77), IdealInterval(-8, 9))
    exchange = Exchange(Ticks(1000), Ticks(3), Ticks(5), HostTime(1 << 40))
    for policy in (CATCH_UP, FREEZE, TimePolicy(Ticks(512))):
        moved = Hop.planned(HopKind.MOVE, AwayClock.EXCHANGE, plan(sample, exchange, policy=policy), 1, 2)
        lived = lived.then(moved)
    return lived.then(Hop.set_by_owner(HostTime(5), Offset(1 << 24), Offset(3 << 60), 7))


def commit() -> Commit:
    return Commit(GuestTime(77), IdealInterval(-8, 9), Ticks(1000), Ticks(3))


def filled_memory() -> GuestMemory:
    memory = GuestMemory(MEMORY)
    memory.write(PAGE_SIZE, b"\x5a" * (2 * PAGE_SIZE))
    memory.write(MEMORY - 3, b"end")
    return memory


RUNS = [(PAGE_SIZE, 2 * PAGE_SIZE), (MEMORY - PAGE_SIZE, PAGE_SIZE)]


def whole_move(header: Header = HEADER) -> bytes:
    """All that a source sends, as bytes."""
    pipe = BytesPipe()
    writer = Writer(pipe)
    writer.header(header)
    for message in (offer(), state(filled_memory(), RUNS), Measure(), commit()):
        writer.message(message)
    return bytes(pipe.data)


def read_move(data: bytes, memory: GuestMemory | None = None) -> list[Message]:
    """Read all of it as a destination does; StreamError where it is no whole move."""
    pipe = BytesPipe(data)
    reader = Reader(pipe)
    header = reader.header()
    first = reader.message()
    assert isinstance(first, Offer)
    header.check_offer(first)
    stopped = reader.message(memory or GuestMemory(MEMORY))
    assert reader.message() == Measure()
    committed = reader.message()
    assert pipe.largest <= MAXIMUM_STATE
    return [first, stopped, committed]
