"""Hypercalls that user space answers, each through a vCPU that makes it."""

import struct
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from fake_kvm import FakeVcpu, Step, call, scripted_guest
from hypothesis import given, settings
from hypothesis import strategies as st

from chronovisor.kvm.exits import FailEntry, InternalError, MmioExit, SystemEvent
from chronovisor.kvm.ids import SystemEventType
from chronovisor.machine import EndReason, Guest, rtas
from chronovisor.machine.devicetree import VTY_UNIT
from chronovisor.machine.guest_log import GuestLog, parse_items
from chronovisor.machine.nvram import SIZE as NVRAM_SIZE
from chronovisor.machine.rtas import call_rtas
from chronovisor.machine.rtas_service import RtasStatus
from chronovisor.machine.rtas_system import CpuState
from chronovisor.machine.services import LPCR_ILE
from chronovisor.papr.hcalls import Hcall, Status
from chronovisor.timebase.types import Ticks

TOKENS = rtas.tokens()
BLOCK = 0x8000
RTAS = call(Hcall.RTAS, BLOCK)


def rtas_block(guest: Guest, service: str | int, args: Sequence[int], returns: int) -> None:
    token = TOKENS[service] if isinstance(service, str) else service
    words = (token, len(args), returns, *args, *[0xAAAA_AAAA] * returns)
    guest.memory.write(BLOCK, struct.pack(f">{len(words)}I", *words))


def rtas_call(service: str | int, *args: int, returns: int = 1) -> tuple[int, list[int], Guest]:
    """The hypercall's status and the service's return values, in a guest that makes it and then loops."""
    guest, (vcpu,) = scripted_guest([RTAS])
    rtas_block(guest, service, args, returns)
    guest.resume()
    while not vcpu.entered.wait(0.01) and guest.end is None:
        pass
    guest.pause()
    values = [guest.memory.load(BLOCK + 12 + 4 * (len(args) + n), 4, False) for n in range(returns)]
    return vcpu.answers[0][0], values, guest


def answers(*script: Step, typed: bytes = b"") -> tuple[list[tuple[int, list[int]]], Guest]:
    guest, (vcpu,) = scripted_guest(script)
    guest.console.type(typed)
    guest.resume()
    assert vcpu.entered.wait(60)
    guest.close()
    return vcpu.answers, guest


@given(st.binary(max_size=16), st.sampled_from([0, VTY_UNIT]))
@settings(max_examples=50)
def test_characters_come_out_of_the_registers_most_significant_first(text: bytes, terminal: int) -> None:
    words = struct.unpack(">QQ", text.ljust(16, b"\xee"))
    done, guest = answers(call(Hcall.PUT_TERM_CHAR, terminal, len(text), *words))
    assert done == [(Status.SUCCESS, [])]
    assert guest.console.printed == text


@pytest.mark.parametrize(("terminal", "length"), [(1, 1), (0, 17), (0, 1 << 63)])
def test_a_call_for_another_terminal_or_too_many_characters_is_refused(terminal: int, length: int) -> None:
    done, guest = answers(call(Hcall.PUT_TERM_CHAR, terminal, length, 0x4141 << 48))
    assert done == [(Status.PARAMETER, [])]
    assert guest.console.printed == b""


@given(st.binary(max_size=40))
@settings(max_examples=50)
def test_what_is_typed_arrives_in_order(typed: bytes) -> None:
    done, _ = answers(*[call(Hcall.GET_TERM_CHAR, 0)] * 4, typed=typed)
    got = b"".join(struct.pack(">QQ", *results[1:])[: results[0]] for _, results in done)
    assert got == typed
    assert all(status == Status.SUCCESS and results[0] <= 16 for status, results in done)


def test_an_unknown_hypercall_is_h_function() -> None:
    assert answers(call(0x398), call(0x1234))[0] == [(Status.FUNCTION, [])] * 2


def test_pages_are_cleared_and_copied() -> None:
    zero, copy = 1 << 15, 1 << 14
    guest, (vcpu,) = scripted_guest(
        [
            call(Hcall.PAGE_INIT, zero, 0x3000),
            call(Hcall.PAGE_INIT, copy, 0x5000, 0x4000),
            call(Hcall.PAGE_INIT, zero, 0x3008),
            call(Hcall.PAGE_INIT, copy, 0x3000, 0x4008),
            call(Hcall.PAGE_INIT, zero, 1 << 20),
            call(Hcall.PAGE_INIT, copy | zero, 0x6000, 1 << 20),
        ]
    )
    guest.memory.write(0x3000, b"\x11" * 0x4000)
    guest.memory.write(0x4000, b"\x22" * 0x1000)
    guest.resume()
    assert vcpu.entered.wait(60)
    guest.pause()
    assert [status for status, _ in vcpu.answers] == [Status.SUCCESS] * 2 + [Status.PARAMETER] * 4
    assert guest.memory.read(0x3000, 0x1000) == bytes(0x1000)
    assert guest.memory.read(0x5000, 0x1000) == b"\x22" * 0x1000
    assert guest.memory.read(0x6000, 0x1000) == b"\x11" * 0x1000
    guest.close()


@pytest.mark.parametrize(
    ("args", "status"),
    [
        ((0, 4, 0, 0), Status.SUCCESS),
        ((2, 4, 0, 0), Status.UNSUPPORTED_FLAG_START),
        ((1, 4, 1, 0), Status.P3),
        ((1, 4, 0, 1), Status.P4),
        ((3, 3, 0, 0), Status.SUCCESS),
        ((2, 3, 0, 0), Status.UNSUPPORTED_FLAG_START),
        ((0, 9, 0, 0), Status.P2),
    ],
)
def test_set_mode(args: tuple[int, ...], status: Status) -> None:
    assert answers(call(Hcall.SET_MODE, *args))[0] == [(status, [])]


def test_the_interrupt_endianness_is_set_on_every_vcpu_also_while_it_runs() -> None:
    gate = threading.Event()

    def when_the_other_runs(_vcpu: FakeVcpu) -> object:
        assert gate.wait(60)
        return call(Hcall.SET_MODE, 1, 4)

    guest, vcpus = scripted_guest([when_the_other_runs], [], [])
    guest.platform.processor(1).stopped = False
    guest.resume()
    assert vcpus[1].entered.wait(60)
    gate.set()
    assert vcpus[0].entered.wait(60)
    guest.pause()
    assert [vcpu.one_regs["LPCR_64"] for vcpu in vcpus] == [LPCR_ILE] * 3
    guest.close()


def test_two_vcpus_that_set_modes_at_once_do_not_wait_for_each_other() -> None:
    together = threading.Barrier(3)

    def set_mode(_vcpu: FakeVcpu) -> object:
        together.wait(60)
        return call(Hcall.SET_MODE, 1, 4)

    guest, vcpus = scripted_guest(*[[set_mode] * 200] * 3)
    for number in range(3):
        guest.platform.processor(number).stopped = False
    guest.resume()
    for vcpu in vcpus:
        assert vcpu.entered.wait(60)
    guest.close()
    assert all(len(vcpu.answers) == 200 for vcpu in vcpus)


def test_display_character() -> None:
    status, values, guest = rtas_call("display-character", ord("k"))
    assert (status, values) == (Status.SUCCESS, [0])
    assert guest.console_text == "k"


def test_power_off_ends_the_guest() -> None:
    _, _, guest = rtas_call("power-off", 0, 0)
    assert guest.end is not None
    assert guest.end.ok


def test_os_term_is_a_panic_that_says_what_the_guest_said() -> None:
    guest, _ = scripted_guest([RTAS])
    guest.memory.write(0x9000, b"out of \x01 cheese\0 and more")
    rtas_block(guest, "ibm,os-term", [0x9000], 1)
    end = guest.run(60)
    assert (end.reason, end.message) == (EndReason.PANIC, "the guest panicked: out of ? cheese")


def test_time_of_day_goes_on_from_where_it_is_set() -> None:
    moment = (2031, 12, 31, 23, 59, 58, 999_000_000)
    status, values, guest = rtas_call("set-time-of-day", *moment)
    assert (status, values) == (Status.SUCCESS, [0])
    ahead = guest.wall_clock.now() - datetime(2031, 12, 31, 23, 59, 58, 999_000, UTC)
    assert timedelta() <= ahead < timedelta(minutes=1)


def test_time_of_day_is_given_in_its_fields() -> None:
    _, values, _ = rtas_call("get-time-of-day", returns=8)
    told = datetime(*values[1:7], values[7] // 1000, UTC)
    assert abs(datetime.now(UTC) - told) < timedelta(minutes=1)


def test_return_values_that_the_guest_did_not_ask_for_are_not_written() -> None:
    _, values, guest = rtas_call("get-time-of-day", returns=2)
    assert values[0] == RtasStatus.SUCCESS
    assert guest.memory.load(BLOCK + 12 + 8, 4, False) == 0


def test_more_words_than_any_service_has_are_refused() -> None:
    assert rtas_call("display-character", *[ord("k")] * 16, returns=1)[0] == Status.PARAMETER
    assert rtas_call("display-character", *[ord("k")] * 15, returns=1)[0] == Status.SUCCESS


@pytest.mark.parametrize("field", [(1, 13), (2, 0), (2, 32), (3, 24), (5, 60), (6, 4_000_000_000), (0, 0)])
def test_a_date_that_does_not_exist_is_refused(field: tuple[int, int]) -> None:
    moment = [2031, 12, 31, 23, 59, 58, 0]
    moment[field[0]] = field[1]
    _, values, guest = rtas_call("set-time-of-day", *moment)
    assert values == [RtasStatus.PARAMETER & 0xFFFF_FFFF]
    assert guest.wall_clock.shift == Ticks(0)


@pytest.mark.parametrize(("cpu", "state"), [(0, CpuState.RUNNING), (1, CpuState.STOPPED)])
def test_query_cpu_stopped_state(cpu: int, state: CpuState) -> None:
    guest, vcpus = scripted_guest([RTAS], [])
    rtas_block(guest, "query-cpu-stopped-state", [cpu], 2)
    guest.resume()
    assert vcpus[0].entered.wait(60)
    guest.pause()
    assert guest.memory.load(BLOCK + 16, 8, False) == state
    guest.close()


def test_start_cpu_starts_a_stopped_one_with_its_argument_and_no_other() -> None:
    guest, vcpus = scripted_guest([RTAS, RTAS], [])
    vcpus[0].regs.msr = 1 << 63 | 1 << 12 | 1
    vcpus[0].one_regs["LPCR_64"] = LPCR_ILE
    rtas_block(guest, "start-cpu", [1, 0x4000, 0x77], 1)
    guest.resume()
    assert vcpus[1].entered.wait(60)
    assert vcpus[0].entered.wait(60)
    guest.pause()
    regs = vcpus[1].regs
    assert (regs.pc, regs.gpr[3], regs.msr) == (0x4000, 0x77, 1 << 63 | 1 << 12 | 1)
    assert vcpus[1].one_regs["LPCR_64"] == LPCR_ILE
    assert guest.memory.load(BLOCK + 24, 4, False) == RtasStatus.HARDWARE & 0xFFFF_FFFF
    guest.close()


@pytest.mark.parametrize("args", [(7, 0x4000, 0), (1, 0x4001, 0)])
def test_start_cpu_refuses_what_is_no_cpu_or_no_address(args: tuple[int, ...]) -> None:
    assert rtas_call("start-cpu", *args)[1] == [RtasStatus.PARAMETER & 0xFFFF_FFFF]


def test_a_vcpu_that_stops_itself_can_be_started_again_with_clean_registers() -> None:
    stopped = threading.Event()

    def start_again(_vcpu: FakeVcpu) -> object:
        assert stopped.wait(60)
        give_up = time.monotonic() + 60
        while not guest.platform.processor(1).stopped:
            assert time.monotonic() < give_up
        rtas_block(guest, "start-cpu", [1, 0x4000, 5], 1)
        return RTAS

    def stop(_vcpu: FakeVcpu) -> object:
        rtas_block(guest, "stop-self", [], 1)
        stopped.set()
        return RTAS

    guest, vcpus = scripted_guest([start_again], [stop])
    guest.platform.processor(1).stopped = False
    guest.resume()
    assert vcpus[0].entered.wait(60)
    assert vcpus[1].entered.wait(60)
    guest.close()
    # Its stop-self was finished before it was started again: what that returned is not in the new r3.
    assert vcpus[1].answers == [(Status.SUCCESS, [])]
    assert vcpus[1].regs.gpr[3] == 5


def test_a_guest_whose_last_vcpu_stops_has_crashed() -> None:
    guest, _ = scripted_guest([RTAS])
    rtas_block(guest, "stop-self", [], 1)
    end = guest.run(60)
    assert end.reason is EndReason.CRASH
    assert "all of its vCPUs" in end.message


@given(
    st.integers(0, (1 << 20) + 64) | st.integers(0, (1 << 64) - 1),
    st.sampled_from([*TOKENS.values(), 0, 0xFFFF_FFFF]),
    st.integers(0, 20) | st.integers(0, 0xFFFF_FFFF),
    st.integers(0, 20) | st.integers(0, 0xFFFF_FFFF),
    st.lists(st.integers(0, 0xFFFF_FFFF), max_size=16),
)
@settings(max_examples=60)
def test_no_argument_block_breaks_the_machine(
    at: int, token: int, nargs: int, nret: int, args: list[int]
) -> None:
    guest, (vcpu,) = scripted_guest([call(Hcall.RTAS, at)])
    data = struct.pack(f">{3 + len(args)}I", token, nargs, nret, *args)
    if at + len(data) <= guest.memory.size:
        guest.memory.write(at, data)
    guest.resume()
    while not vcpu.entered.wait(0.01) and guest.end is None:
        pass
    guest.close()
    assert guest.end is None or guest.end.reason is not EndReason.INTERNAL_ERROR


@pytest.mark.parametrize(
    ("exit_", "reason", "said"),
    [
        (
            SystemEvent(SystemEventType.CRASH, (0x700, 4, 0), "it went wrong"),
            EndReason.CRASH,
            "it went wrong",
        ),
        (MmioExit(0x1234_0000, 4, True), EndReason.CRASH, "wrote to 0x12340000"),
        (FailEntry(1, "no entry"), EndReason.INTERNAL_ERROR, "no entry"),
        (InternalError("ours"), EndReason.INTERNAL_ERROR, "ours"),
        (SystemEvent(SystemEventType.RESET), EndReason.INTERNAL_ERROR, "unexpected"),
    ],
)
def test_exits_that_end_a_guest(exit_: Step, reason: EndReason, said: str) -> None:
    guest, _ = scripted_guest([exit_])
    end = guest.run(60)
    assert end.reason is reason
    assert said in end.message
    guest.close()


def test_a_mistake_of_ours_ends_the_guest_and_says_where() -> None:
    def broken(_vcpu: FakeVcpu) -> object:
        raise ZeroDivisionError("oh")

    guest, _ = scripted_guest([broken], [])
    end = guest.run(60)
    assert end.reason is EndReason.INTERNAL_ERROR
    assert "ZeroDivisionError: oh" in end.message
    assert "fake_kvm" in end.details
    guest.close()


def test_nvram_is_read_and_written_within_its_bounds() -> None:
    guest, (vcpu,) = scripted_guest([])
    nvram = guest.platform.nvram
    assert nvram.read(0, 4) == b"\x7f\x1d\x04\x00"
    guest.memory.write(0x9000, b"kept")
    for service, offset, length, done in (
        ("nvram-store", 100, 4, 4),
        ("nvram-fetch", 100, 4, 4),
        ("nvram-store", NVRAM_SIZE - 1, 4, 1),
        ("nvram-fetch", NVRAM_SIZE, 4, 0),
        ("nvram-fetch", 0xFFFF_FFFF, 0xFFFF_FFFF, 0),
    ):
        rtas_block(guest, service, [offset, 0x9000, length], 2)
        assert call_rtas(guest.platform, guest.platform.processor(0), BLOCK) == Status.SUCCESS
        assert [guest.memory.load(BLOCK + 24 + 4 * n, 4, False) for n in range(2)] == [0, done]
    assert nvram.read(100, 4) == b"kept"
    assert len(nvram.contents) == NVRAM_SIZE
    assert vcpu.answers == []


def test_system_parameters_are_cut_to_the_guests_buffer() -> None:
    status, values, guest = rtas_call("ibm,get-system-parameter", 20, 0x9000, 12)
    assert (status, values) == (Status.SUCCESS, [0])
    assert guest.memory.read(0x9000, 14) == b"\0\x20MaxEntCap=\0\0"
    assert rtas_call("ibm,get-system-parameter", 999, 0x9000, 12)[1] == [RtasStatus.PARAMETER & 0xFFFF_FFFF]


def test_there_are_no_events() -> None:
    assert rtas_call("event-scan", 0xFFFF_FFFF, 0, 0x9000, 2048)[1] == [1]


def test_calls_in_vain_are_logged_by_what_was_asked_for() -> None:
    lines = {}
    for items in ("unimp", "guest_errors", "unimp,guest_errors"):
        logged: list[bytes] = []
        guest, (vcpu,) = scripted_guest(
            [RTAS, call(0x3FC), call(Hcall.PUT_TERM_CHAR, 7), call(Hcall.GET_TERM_CHAR)]
        )
        rtas_block(guest, 0x4321, [], 1)
        guest.platform.log = GuestLog(parse_items(items), logged.append)
        guest.resume()
        assert vcpu.entered.wait(60)
        guest.close()
        lines[items] = b"".join(logged).decode().splitlines()
    zeros = ", 0x0" * 8
    missing = ["vCPU 0: unknown RTAS token 0x4321", "vCPU 0: unimplemented hypercall 0x3fc"]
    wrong = [
        f"vCPU 0: H_RTAS({BLOCK:#x}{zeros}): H_PARAMETER",
        f"vCPU 0: H_PUT_TERM_CHAR(0x7{zeros}): H_PARAMETER",
    ]
    assert lines["unimp"] == missing
    assert lines["guest_errors"] == wrong
    assert sorted(lines["unimp,guest_errors"]) == sorted(missing + wrong)


def test_a_service_whose_arguments_are_wrong_is_logged() -> None:
    logged: list[bytes] = []
    guest, (vcpu,) = scripted_guest([RTAS])
    rtas_block(guest, "ibm,int-off", [0x99], 1)
    guest.platform.log = GuestLog(parse_items("guest_errors"), logged.append)
    guest.resume()
    assert vcpu.entered.wait(60)
    guest.close()
    assert logged == [b"vCPU 0: RTAS ibm,int-off(0x99): parameter error\n"]
