"""Whole guests on the embedded host, through the names that users have."""

import sys
import threading
import time

import pytest
from elf_files import POWER_OFF, Elf, Part, R, W, X, program
from two_vcpus import TWO_CPUS

from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.registers import RegisterError
from chronovisor.machine import Console, EndReason, Host, ImageError, MachineError
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import GuestTime, Ticks

LOOP = program("b .")
COUNT = program("loop: addi r5,r5,1; b loop")
"""Executes two instructions a turn and keeps count in r5."""
SAY_AND_LOOP = program("""
    li r3,0x58; li r4,0; li r5,1; lis r6,0x6100; sldi r6,r6,32
    sc 1
    b .
""")


@pytest.mark.parametrize("clock", ["real", "virtual"])
@pytest.mark.parametrize("image", ["hello-le.elf", "hello-be.elf"])
def test_hello(image: str, clock: str) -> None:
    heard: list[bytes] = []
    with Host(clock=clock, tb_origin=1 << 50) as host:
        guest = host.boot(image, console=heard.append)
        end = guest.run(60)
    assert end.ok
    assert b"".join(heard).decode() == guest.console_text
    lines = guest.console_text.splitlines()
    assert lines[0] == f"Hello from a {'little' if 'le' in image else 'big'}-endian Power guest."
    assert lines[1].endswith("and it goes forward")
    assert lines[2] == "decrementer interrupt on time"
    assert int(lines[1].split()[1].rstrip(","), 16) >= 1 << 50


@pytest.mark.parametrize(("smp", "typed"), [(1, "ttq"), (3, "tq")])
def test_in_virtual_time_a_run_is_repeated_to_the_tick(smp: int, typed: str) -> None:
    def run() -> tuple[str, int]:
        with Host(clock="virtual", cores=smp, tb_origin=12345) as host:
            guest = host.boot("demo-le.elf", smp=smp)
            guest.console.type(typed)
            assert guest.run(120).ok
            return guest.console_text, host.timebase.value

    assert run() == run()


@pytest.mark.parametrize("clock", ["real", "virtual"])
@pytest.mark.parametrize("little", [True, False])
def test_a_second_vcpu_is_started_and_stops_itself(clock: str, little: bool) -> None:
    with Host(clock=clock, cores=2) as host:
        guest = host.boot(program(TWO_CPUS, little), smp=2)
        assert guest.machine_state.stopped == (False, True)
        assert guest.run(60).ok
        assert guest.machine_state.stopped == (False, True)
        assert guest.get("R8", vcpu=1) > 0


def test_a_run_for_so_many_ticks_is_exact_in_virtual_time() -> None:
    with Host(clock="virtual") as host:
        guest = host.boot(COUNT)
        for ticks in (1 << 20, 256, 12_800):
            before, count = host.timebase, guest.get("R5")
            assert guest.run_for(Ticks(ticks)) is None
            assert host.timebase - before == Ticks(ticks)
            assert abs(2 * (guest.get("R5") - count) - ticks // 256) <= 2


def test_a_guest_that_is_held_is_let_go_by_nobody_else() -> None:
    with Host() as host:
        guest = host.boot(COUNT)
        others = [threading.Thread(target=guest.resume), threading.Thread(target=guest.get, args=("R5",))]
        with guest.held():
            for other in others:
                other.start()
            time.sleep(0.1)
            assert not guest.running
            assert others[0].is_alive()
            assert guest.get("R5") == 0
        for other in others:
            other.join(60)
            assert not other.is_alive()
        assert guest.running
        guest.pause()


def test_a_guest_that_is_not_running_does_nothing() -> None:
    with Host() as host:
        guest = host.boot(COUNT)
        guest.resume()
        while guest.get("R5") == 0:
            time.sleep(0.02)
        assert guest.running
        guest.pause()
        count = guest.get("R5")
        time.sleep(0.05)
        assert guest.get("R5") == count
        guest.resume()
        while guest.get("R5") == count:
            time.sleep(0.02)


def test_the_timebase_offset_is_rounded_up_and_moves_the_guests_time_by_just_that() -> None:
    with Host(clock="virtual", tb_origin=777) as host:
        guest = host.boot(program("mfspr r5,268; b ."), tb_offset="0x1234567")
        assert guest.get("tb_offset") == 0x2000000
        guest.run_for(Ticks(1 << 16))
        first = guest.get("R5")
        assert guest.timebase() == GuestTime(host.timebase.value + 0x2000000)
        guest.set("PC", 0x10000)
        guest.set("TB_OFFSET", -1)
        assert guest.get("TB_OFFSET") == 0
        before = host.timebase.value
        guest.run_for(Ticks(1 << 16))
        assert 0x2000000 <= first < 0x2010000
        assert before <= guest.get("R5") <= host.timebase.value


def test_the_decrementer_of_a_booted_guest_has_not_run_out() -> None:
    with Host(clock="virtual") as host:
        guest = host.boot(program("mfspr r5,22; b ."), tb_offset=1 << 40)
        guest.run_for(Ticks(1 << 16))
        assert 0 <= 0x7FFF_FFFF - guest.get("R5") < 1 << 16


def test_run_until_stops_where_the_text_has_come_or_the_time_is_over() -> None:
    with Host(clock="virtual") as host:
        guest = host.boot(SAY_AND_LOOP)
        assert guest.run_until("a")
        assert guest.run_until(lambda text: text == "a")
        before = host.timebase
        assert not guest.run_until("b", Ticks(1 << 16))
        assert host.timebase - before == Ticks(1 << 16)
        assert not guest.running


def test_a_time_out_leaves_the_guest_able_to_go_on() -> None:
    with Host() as host:
        guest = host.boot(LOOP)
        assert guest.run(0.05).reason is EndReason.TIMED_OUT
        assert guest.end is None
        guest.set("PC", guest.get("PC"))
        assert guest.run(0.05).reason is EndReason.TIMED_OUT


def test_a_guest_can_be_stopped_by_another_thread() -> None:
    with Host(clock="virtual") as host:
        guest = host.boot(COUNT)
        stopper = threading.Timer(0.1, lambda: guest.platform.crash("stopped by its owner"))
        stopper.start()
        assert guest.run(60).message == "stopped by its owner"
        with pytest.raises(MachineError, match="has ended"):
            guest.resume()


def test_the_device_tree_is_where_r3_says_and_leaves_the_image_alone() -> None:
    with Host() as host:
        guest = host.boot(LOOP, memory="1M", append="hello there")
        at = guest.get("R3")
        assert guest.memory.read(at, 4) == b"\xd0\x0d\xfe\xed"
        assert b"hello there\0" in guest.memory.read(at, guest.memory.load(at + 4, 4, False))
        assert at >= 0x10000 + 4 + 0x10000


@pytest.mark.parametrize(
    ("first", "little", "entered_little"),
    [
        ("48000005", True, False),  # a big-endian `bl .+4`, which reads as no little-endian instruction
        ("08000048", True, True),  # `tdi 0,r0,72`: in the other order a branch too, but right as it is
        ("00000048", True, True),
        ("05000048", False, False),
        ("", True, True),
    ],
)
def test_an_image_is_entered_in_the_endianness_of_its_first_instruction(
    first: str, little: bool, entered_little: bool
) -> None:
    elf = Elf([Part(bytes.fromhex(first), 0x4000, memsz=8)], 0x4000, little, flags=2)
    with Host() as host:
        assert host.boot(elf.build()).get("MSR") & 1 == entered_little


@pytest.mark.parametrize("little", [True, False])
def test_the_state_at_the_entry_point(little: bool) -> None:
    with Host() as host:
        guest = host.boot(program("b .", little))
        assert guest.get("PC") == 0x10000
        assert guest.get("MSR") == 1 << 63 | 1 << 12 | little
        assert [guest.get(f"R{n}") for n in (1, 2, *range(4, 12), *range(13, 32))] == [0] * 29


def test_the_device_tree_goes_below_an_image_at_the_end_of_memory() -> None:
    with Host() as host:
        guest = host.boot(program("b .", origin=0xE_F000), memory="1M")
        at = guest.get("R3")
        assert at >= 0x4000
        assert at + guest.memory.load(at + 4, 4, False) <= 0xE_F000
        with pytest.raises(MachineError, match="no 20 bytes for RTAS"):
            host.boot(Elf([Part(bytes(4), 0x4000, memsz=(1 << 20) - 0x4000)], 0x4000).build(), memory="1M")


def test_under_the_first_abi_r2_is_the_descriptors_toc_and_under_the_second_r12_the_entry() -> None:
    descriptor = (0x4000).to_bytes(8, "big") + (0xCAFE).to_bytes(8, "big")
    parts = [Part(bytes(8), 0x4000, flags=R | X), Part(descriptor, 0x5000, flags=R | W)]
    with Host() as host:
        first = host.boot(Elf(parts, 0x5000, little=False, flags=1).build())
        assert (first.get("PC"), first.get("R2"), first.get("R12")) == (0x4000, 0xCAFE, 0)
        second = host.boot(Elf(parts, 0x4000, little=False, flags=2).build())
        assert (second.get("PC"), second.get("R2"), second.get("R12")) == (0x4000, 0, 0x4000)


def test_consoles_outlive_their_guest() -> None:
    console = Console()
    for _ in range(2):
        with Host() as host:
            host.boot(SAY_AND_LOOP, console=console).run_until("a")
    assert console.text == "a"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"memory": "12"}, "too small"),
        ({"memory": "512T"}, "smaller --memory"),
        ({"smp": 0}, "0 vCPUs"),
        ({"smp": 3, "threads": 2}, "do not fill"),
        ({"smp": 3, "threads": 3}, "3 threads"),
        ({"tb_offset": "soon"}, "timebase offset 'soon'"),
        ({"tb_offset": 1 << 64}, "too wide"),
    ],
)
def test_a_boot_that_makes_no_sense(change: dict[str, object], said: str) -> None:
    with Host() as host:
        with pytest.raises(MachineError, match=said):
            host.boot(LOOP, **change)
        assert host.guests == []
        # Nothing is left behind: the host takes the next guest.
        assert host.boot(program(POWER_OFF)).run(60).ok


def test_an_image_larger_than_memory_is_refused() -> None:
    with Host() as host, pytest.raises(ImageError, match="lies outside"):
        host.boot(program("b .", origin=0x20_0000), memory="1M")


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("R32", 0, RegisterError),
        ("TB", 0, RegisterError),
        ("R1", 1 << 64, RegisterError),
        ("PVR", 1, KvmError),
    ],
)
def test_a_register_that_cannot_be_set(name: str, value: int, error: type[Exception]) -> None:
    with Host() as host:
        guest = host.boot(LOOP)
        with pytest.raises(error):
            guest.set(name, value)
        with pytest.raises(MachineError, match="no vCPU 1"):
            guest.get("PC", vcpu=1)


def test_a_host_that_makes_no_sense() -> None:
    for wrong in ({"clock": "lunar"}, {"cpu": "power4"}, {"cores": 0}, {"threads": 3}, {"tb_origin": "x"}):
        with pytest.raises((MachineError, KvmError)):
            Host(**wrong)


def test_two_hosts_on_one_clock_know_each_others_time() -> None:
    clock = VirtualTime()
    with Host(clock=clock, tb_origin=5) as one, Host(clock=clock, tb_origin=1 << 60) as other:
        one.boot(LOOP).run_for(Ticks(1024))
        assert (one.timebase.value, other.timebase.value) == (1029, (1 << 60) + 1024)


@pytest.mark.parametrize("alone", [900, 4300, 8500, 20_700])
def test_a_second_vcpus_turns_begin_whatever_executed_the_first_one(alone: int) -> None:
    """The first one is alone for some thousand instructions, which evaluators execute in pieces of other
    lengths.
    """

    def run(engine: str) -> tuple[int, int]:
        text = f"lis r9,0; ori r9,r9,{alone}; mtctr r9\nfirst: bdnz first\n{TWO_CPUS}"
        with Host(clock="virtual", cores=2, engine=engine) as host:
            guest = host.boot(program(text, little=False), smp=2)
            assert guest.run(60).ok
            return host.timebase.value, guest.get("R8", 1)

    assert run("threaded") == run("concrete")


@pytest.mark.parametrize(("before", "after"), [(0.005, 0.0005), (0.0001, 0.0001)])
def test_vcpus_threads_get_the_interpreters_lock_soon(before: float, after: float) -> None:
    kept = sys.getswitchinterval()
    sys.setswitchinterval(before)
    try:
        with Host(clock="virtual") as host:
            host.boot(program(POWER_OFF)).run(10)
        assert sys.getswitchinterval() == pytest.approx(after, abs=2e-6)
    finally:
        sys.setswitchinterval(kept)
