"""The embedded provider behind KVM's interface: what it refuses, and that it changes nothing then."""

from __future__ import annotations

import errno
import struct
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chronovisor.kvm.embedded.system import EmbeddedSystem
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.exits import DebugExit, FailEntry, HcallExit, InternalError, Interrupted, SystemEvent
from chronovisor.kvm.ids import ONE_REG_BY_NAME, ONE_REGS, Cap, MemoryFlag, SystemEventType
from chronovisor.kvm.interface import HostOptions, Vcpu, Vm
from chronovisor.kvm.provider import open_system
from chronovisor.kvm.registers import read_register, register_names, write_register
from chronovisor.kvm.structures import Sregs
from chronovisor.memory.guest_memory import GuestMemory
from chronovisor.timebase.clock import RealTime, VirtualTime

MSR_LE = 0x8000_0000_0000_1001


def system(**options: object) -> EmbeddedSystem:
    opened = open_system(HostOptions(**{"source": VirtualTime(), "engine": "concrete", **options}))  # type: ignore[arg-type]
    assert isinstance(opened, EmbeddedSystem)
    return opened


def guest(words: list[int], **options: object) -> tuple[Vm, Vcpu]:
    """A machine with this little-endian code at 0, and its vCPU 0 about to run it."""
    vm = system(**options).create_vm()
    memory = GuestMemory(1 << 20)
    memory.write(0, b"".join(struct.pack("<I", word) for word in words))
    vm.set_user_memory_region(0, 0, 0, memory)
    vcpu = vm.create_vcpu(0)
    regs = vcpu.get_regs()
    regs.msr = MSR_LE
    vcpu.set_regs(regs)
    return vm, vcpu


def refused(call: Callable[[], object]) -> str:
    """The errno's name that the call is refused with."""
    with pytest.raises(KvmError) as raised:
        call()
    assert "\n" not in str(raised.value)
    return errno.errorcode[raised.value.errno or 0]


@pytest.mark.parametrize(
    "options",
    [
        {"cores": 0},
        {"threads_per_core": 3},
        {"threads_per_core": 16},
        {"cpu_model": "power5"},
        {"cpu_model": "power9", "threads_per_core": 8},
        {"ticks_per_instruction": 0},
    ],
)
def test_options_that_make_no_host(options: dict[str, object]) -> None:
    assert refused(lambda: system(**options)) == "EINVAL"


def test_memory_is_one_region_from_0() -> None:
    vm = system().create_vm()
    memory = GuestMemory(1 << 16)
    assert refused(lambda: vm.set_user_memory_region(0, 0, 0x1001, memory)) == "EINVAL"
    assert refused(lambda: vm.set_user_memory_region(0, 0, 0x10000, memory)) == "EINVAL"
    vm.set_user_memory_region(0, 0, 0, memory)
    assert refused(lambda: vm.set_user_memory_region(1, 0, 0, memory)) == "EEXIST"
    assert refused(lambda: vm.get_dirty_log(1)) == "ENOENT"


def test_dirty_pages_are_logged_where_that_was_asked_for() -> None:
    vm = system().create_vm()
    memory = GuestMemory(1 << 16)
    vm.set_user_memory_region(0, 0, 0, memory)
    memory.write(0x5000, b"x")
    assert refused(lambda: vm.get_dirty_log(0)) == "ENOENT"
    vm.set_user_memory_region(0, MemoryFlag.LOG_DIRTY_PAGES, 0, memory)
    # What was written before is in no log.
    assert list(vm.get_dirty_log(0)) == []
    memory.write(0x5FFF, b"xy")
    memory.write(0x2000, b"x")
    vm.set_user_memory_region(0, MemoryFlag.LOG_DIRTY_PAGES, 0, memory)
    assert list(vm.get_dirty_log(0)) == [2, 5, 6]
    assert list(vm.get_dirty_log(0)) == []
    for other in (
        lambda: vm.set_user_memory_region(0, 0, 0, GuestMemory(1 << 16)),
        lambda: vm.set_user_memory_region(0, 0, 0x10000, memory),
        lambda: vm.set_user_memory_region(0, 2, 0, memory),
    ):
        assert refused(other) == "EINVAL"
    vm.set_user_memory_region(0, 0, 0, memory)
    assert refused(lambda: vm.get_dirty_log(0)) == "ENOENT"


def test_a_vcpu_without_memory_fails_to_enter() -> None:
    ended = system().create_vm().create_vcpu(0).run()
    assert isinstance(ended, FailEntry)


@pytest.mark.parametrize(
    ("model", "duplicate"), [("power9", "EINVAL"), ("power8", "EEXIST")], ids=["power9", "power8"]
)
def test_vcpu_ids(model: str, duplicate: str) -> None:
    vm = system(cpu_model=model).create_vm()
    vm.create_vcpu(3)
    assert refused(lambda: vm.create_vcpu(3)) == duplicate
    for wrong in (-1, 16384, 100_000):
        assert refused(lambda wrong=wrong: vm.create_vcpu(wrong)) == "EINVAL"


def test_threads_per_virtual_core_on_a_power8() -> None:
    vm = system(cpu_model="power8", threads_per_core=4).create_vm()
    assert vm.check_extension(Cap.PPC_SMT) == 4
    assert refused(lambda: vm.enable_cap(Cap.PPC_SMT, 8, 0)) == "EINVAL"
    vm.enable_cap(Cap.PPC_SMT, 2, 0)
    assert vm.check_extension(Cap.PPC_SMT) == 2
    vcpus = [vm.create_vcpu(n) for n in range(4)]
    assert refused(lambda: vm.enable_cap(Cap.PPC_SMT, 1, 0)) == "EBUSY"
    write_register(vcpus[1], "TB_OFFSET", 5)
    assert [read_register(vcpu, "TB_OFFSET") for vcpu in vcpus] == [1 << 24, 1 << 24, 0, 0]


def test_capabilities_that_cannot_be_enabled() -> None:
    vm = system().create_vm()
    vcpu = vm.create_vcpu(0)
    vcpu.enable_cap(Cap.PPC_PAPR)
    assert refused(lambda: vcpu.enable_cap(Cap.PPC_HTM)) == "EINVAL"
    assert refused(lambda: vm.enable_cap(Cap.PPC_HTM)) == "EINVAL"
    for number, enable, why in [
        (0x58, 1, "H_PUT_TERM_CHAR is always left to user space"),
        (0x7777, 1, "hypercall 0x7777 is always left to user space"),
        (0xE0, 2, "H_CEDE is enabled by 1 or disabled by 0, not 2"),
    ]:
        with pytest.raises(KvmError, match=why) as raised:
            vm.enable_cap(Cap.PPC_ENABLE_HCALL, number, enable)
        assert raised.value.errno == errno.EINVAL


def test_a_hypercall_is_answered_here_or_by_user_space_as_that_chooses() -> None:
    random = [0x38600300, 0x44000002 | 0x20, 0x38600058, 0x44000022]
    vm, vcpu = guest(random)
    ended = vcpu.run()
    assert isinstance(ended, HcallExit)
    assert ended.nr == 0x300
    vm, vcpu = guest(random)
    vm.enable_cap(Cap.PPC_ENABLE_HCALL, 0x300, 1)
    ended = vcpu.run()
    assert isinstance(ended, HcallExit)
    assert ended.nr == 0x58
    vm, vcpu = guest([0x386000E8, 0x44000022])
    vm.enable_cap(Cap.PPC_ENABLE_HCALL, 0xE8, 0)
    ended = vcpu.run()
    assert isinstance(ended, HcallExit)
    assert ended.nr == 0xE8


def test_the_answer_of_a_hypercall_is_in_the_registers_before_the_guest_goes_on() -> None:
    _, vcpu = guest([0x38600058, 0x44000022, 0x44000022])
    ended = vcpu.run()
    assert isinstance(ended, HcallExit)
    ended.ret = -2
    ended.results = [11, (1 << 64) | 22]
    before = vcpu.get_regs()
    vcpu.kick()
    assert vcpu.run() == Interrupted()
    after = vcpu.get_regs()
    assert before.gpr[3] == 0x58
    assert after.gpr[3:6] == [(1 << 64) - 2, 11, 22]
    assert (after.pc, after.gpr[6:]) == (before.pc, before.gpr[6:])


def test_an_answer_that_cannot_be_is_an_internal_error() -> None:
    _, vcpu = guest([0x38600058, 0x44000022])
    ended = vcpu.run()
    assert isinstance(ended, HcallExit)
    ended.results = [0] * 10
    assert isinstance(vcpu.run(), InternalError)


def test_a_guest_that_jumps_out_of_its_memory_crashes_with_the_address() -> None:
    _, vcpu = guest([])
    regs = vcpu.get_regs()
    regs.pc = 0x7654_3210
    vcpu.set_regs(regs)
    ended = vcpu.run()
    assert isinstance(ended, SystemEvent)
    assert ended.type is SystemEventType.CRASH
    assert "0x76543210" in ended.message


def test_a_register_too_wide_is_refused_and_nothing_is_changed() -> None:
    _, vcpu = guest([])
    for name, value in (("DSISR", 1 << 32), ("TB_OFFSET", 1 << 64), ("TB_OFFSET", -1), ("VR0", 1 << 128)):
        register = ONE_REG_BY_NAME[name].id
        before = vcpu.get_one_reg(register)
        assert refused(lambda r=register, v=value: vcpu.set_one_reg(r, v)) == "EINVAL"
        assert vcpu.get_one_reg(register) == before
    regs = vcpu.get_regs()
    regs.gpr[31] = 1 << 64
    assert refused(lambda: vcpu.set_regs(regs)) == "EINVAL"
    regs.gpr.pop()
    assert refused(lambda: vcpu.set_regs(regs)) == "EINVAL"
    assert refused(lambda: vcpu.set_sregs(Sregs(pvr=0x4D0200))) == "EINVAL"
    vcpu.set_sregs(vcpu.get_sregs())


@pytest.mark.parametrize(("sdr1", "slb"), [(1, []), (0, [(1 << 27, 0x400)]), (0, [(0, 0), (0, 1)])])
def test_what_it_cannot_keep_of_sregs_is_refused(sdr1: int, slb: list[tuple[int, int]]) -> None:
    _, vcpu = guest([])
    pvr = vcpu.get_sregs().pvr
    with pytest.raises(KvmError, match="hashed page tables") as raised:
        vcpu.set_sregs(Sregs(pvr, sdr1, slb))
    assert raised.value.errno == errno.EINVAL
    vcpu.set_sregs(Sregs(pvr, 0, [(0, 0)] * 64))


def test_a_host_without_tbu40_says_why_it_refuses_an_offset() -> None:
    vm = system(cpu_model="ppc970").create_vm()
    vcpu = vm.create_vcpu(0)
    with pytest.raises(KvmError, match="TBU40") as raised:
        write_register(vcpu, "TB_OFFSET", 1)
    assert raised.value.errno == errno.EINVAL
    write_register(vcpu, "TB_OFFSET", 0)
    assert read_register(vcpu, "TB_OFFSET") == 0


def test_every_register_is_kept_or_refused_and_none_is_forgotten() -> None:
    """Of every id that the table has: what is taken is read back, by name as by id, and stays over a run."""
    _, vcpu = guest([0x38600058, 0x44000022])
    taken: dict[str, int] = {}
    refusing = set()
    special = {"LPCR", "LPCR_64", "VPA_ADDR", "VPA_SLB", "VPA_DTL", "TB_OFFSET", "ARCH_COMPAT", "PSSCR"}
    for n, register in enumerate(ONE_REGS):
        if register.name in special or register.name.startswith("FPR"):
            continue
        value = (0x0123_4567_89AB_CDEF_0123_4567_89AB_CDEF >> (n % 16)) & (
            (1 << min(8 * register.size, 128)) - 1
        )
        try:
            vcpu.set_one_reg(register.id, value)
            taken[register.name] = vcpu.get_one_reg(register.id)
        except KvmError:
            refusing.add(register.name.rstrip("0123456789"))
    assert refusing == {
        *("ICP_STATE", "VP_STATE", "TFHAR", "TFIAR", "TEXASR", "SPRG", "DEBUG_INST", "DBSR"),
        *(
            "TM_GPR",
            "TM_VSR",
            "TM_CR",
            "TM_LR",
            "TM_CTR",
            "TM_FPSCR",
            "TM_AMR",
            "TM_PPR",
            "TM_VRSAVE",
            "TM_DSCR",
        ),
        *("TM_TAR", "TM_XER", "TM_VSCR"),
    }
    assert len(taken) > 120
    assert isinstance(vcpu.run(), HcallExit)
    moving = {"VTB", "PURR", "SPURR"}
    # The exit keeps of an expiry what 32 bits of DEC say.
    for name, value in taken.items():
        if name not in moving | {"DEC_EXPIRY"}:
            assert read_register(vcpu, name) == value, name
    assert set(taken) <= set(register_names())


def test_of_psscr_the_guests_part_is_kept() -> None:
    _, vcpu = guest([])
    write_register(vcpu, "PSSCR", (1 << 64) - 1)
    assert read_register(vcpu, "PSSCR") == 0xF000_0000_0000_03FF


def test_floating_point_registers_are_the_upper_halves_of_the_vector_scalar_ones() -> None:
    _, vcpu = guest([])
    write_register(vcpu, "VSR3", (1 << 64) | 2)
    assert read_register(vcpu, "FPR3") == 1
    write_register(vcpu, "FPR3", 9)
    assert read_register(vcpu, "VSR3") == (9 << 64) | 2
    assert read_register(vcpu, "VR3") == 0


def test_the_guest_computes_with_the_floating_point_and_vector_registers_that_are_set() -> None:
    words = [
        0xF0E00CD4,  # xxlxor vs7,vs32,vs1
        0x10E00604,  # mfvscr v7
        0x38600058,
        0x44000022,
    ]
    _, vcpu = guest(words)
    regs = vcpu.get_regs()
    regs.msr |= 1 << 25 | 1 << 23  # VEC, VSX
    vcpu.set_regs(regs)
    # VR0 is VSR32, FPR1 the upper half of VSR1.
    write_register(vcpu, "VR0", 0xFF << 64 | 0xF0)
    write_register(vcpu, "FPR1", 0x0F)
    write_register(vcpu, "VSCR", 0x10001)
    assert isinstance(vcpu.run(), HcallExit)
    assert read_register(vcpu, "VSR7") == 0xF0 << 64 | 0xF0
    assert read_register(vcpu, "FPR7") == 0xF0
    assert read_register(vcpu, "VR7") == 0x10001


@given(st.integers(0, (1 << 64) - 1))
def test_an_offset_is_rounded_up_to_a_multiple_of_2_to_the_24(value: int) -> None:
    vcpu = system().create_vm().create_vcpu(0)
    write_register(vcpu, "TB_OFFSET", value)
    kept = read_register(vcpu, "TB_OFFSET")
    assert kept % (1 << 24) == 0
    assert 0 <= (kept - value) % (1 << 64) < 1 << 24


def test_a_step_over_a_call_of_user_space_is_done_when_that_has_answered() -> None:
    # li r3,0x58; sc 1; li r4,7; b .
    _, vcpu = guest([0x38600058, 0x44000022, 0x38800007, 0x48000000])
    vcpu.single_step(True)
    assert vcpu.run() == DebugExit(4, stepped=True)
    assert isinstance(vcpu.run(), HcallExit)
    assert vcpu.run() == DebugExit(8, stepped=True)
    assert vcpu.get_regs().gpr[4] == 0
    assert vcpu.run() == DebugExit(12, stepped=True)
    assert vcpu.get_regs().gpr[4] == 7


def test_a_run_in_real_time_is_ended_by_a_kick_from_another_thread() -> None:
    _, vcpu = guest([0x48000000], source=RealTime())
    threading.Timer(0.05, vcpu.kick).start()
    assert vcpu.run() == Interrupted()


def test_a_register_waits_for_the_vcpu_to_leave_its_run_and_is_served_before_the_next() -> None:
    """As the kernel's mutex does: whoever asked first has it, though the runner comes back at once."""
    _, vcpu = guest([0x38840001, 0x4BFFFFFC], source=RealTime())
    runs = 0
    stop = threading.Event()

    def keep_running() -> None:
        nonlocal runs
        while not stop.is_set():
            assert vcpu.run() == Interrupted()
            runs += 1

    def keep_kicking() -> None:
        while not stop.wait(0.002):
            vcpu.kick()
        vcpu.kick()

    threads = [threading.Thread(target=target, daemon=True) for target in (keep_running, keep_kicking)]
    for thread in threads:
        thread.start()
    for n in range(1, 20):
        write_register(vcpu, "TB_OFFSET", n << 24)
        assert read_register(vcpu, "TB_OFFSET") == n << 24
    stop.set()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert runs >= 1
