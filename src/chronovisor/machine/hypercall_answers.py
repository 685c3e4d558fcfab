"""The hypercalls that user space answers: console, RTAS, modes, devices; all others are H_FUNCTION."""

from __future__ import annotations

from typing import Final

from chronovisor.kvm.exits import HcallExit
from chronovisor.kvm.ids import ONE_REG_BY_NAME, MmuV3Flag
from chronovisor.kvm.interface import Vcpu
from chronovisor.machine.device_hypercalls import HANDLERS as DEVICE_HANDLERS
from chronovisor.machine.devicetree import VTY_UNIT
from chronovisor.machine.entry import MSR_EE
from chronovisor.machine.hypercall import DONE, Answer, HypercallFunction
from chronovisor.machine.rtas import call_rtas
from chronovisor.machine.services import LPCR_AIL, LPCR_ILE, Machine, Translation
from chronovisor.machine.vcpu_thread import VcpuThread
from chronovisor.memory import PAGE_SIZE, AddressError
from chronovisor.papr.hcalls import Hcall, PageInit, SetMode, Status

_LPCR: Final = ONE_REG_BY_NAME["LPCR_64"].id
LPCR_AIL_SHIFT: Final = 23
_CALL_BYTES: Final = 16
"""How many characters H_PUT_TERM_CHAR and H_GET_TERM_CHAR carry at most."""
_LARGEST_PROCESS_TABLE: Final = 24
"""As log2 of its size in bytes, less 12."""


_UNKNOWN: Final = Answer(Status.FUNCTION)


def answer_hypercall(machine: Machine, caller: VcpuThread, call: HcallExit) -> None:
    """Answer the call that the vCPU has left the guest with."""
    handler = _HANDLERS.get(call.nr)
    call.ret, call.results = _UNKNOWN if handler is None else handler(machine, caller, call.args)
    if call.ret < 0 and machine.log is not None:
        machine.log.refused_hypercall(caller.vcpu.id, call)


def _put_term_char(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    terminal, length = args[:2]
    if terminal not in (0, VTY_UNIT) or length > _CALL_BYTES:
        return Answer(Status.PARAMETER)
    if length:
        text = ((args[2] << 64) | args[3]).to_bytes(_CALL_BYTES, "big")
        machine.console.write(text[:length])
    return DONE


def _get_term_char(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    if args[0] not in (0, VTY_UNIT):
        return Answer(Status.PARAMETER)
    typed = machine.console.read(_CALL_BYTES)
    words = int.from_bytes(typed.ljust(_CALL_BYTES, b"\0"), "big")
    return Answer(Status.SUCCESS, (len(typed), words >> 64, words & ((1 << 64) - 1)))


def _vasi_state(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_VASI_STATE: how far the move of a stream is."""
    state = machine.vasi_state(args[0])
    return Answer(Status.PARAMETER) if state is None else Answer(Status.SUCCESS, (state,))


def _join(machine: Machine, caller: VcpuThread, _args: tuple[int, ...]) -> Answer:
    """H_JOIN: wait for H_PROD, whatever interrupts come; the last one that runs is told so instead."""
    if caller.vcpu.get_regs().msr & MSR_EE:
        return Answer(Status.BAD_MODE)
    return DONE if machine.join(caller) else Answer(Status.CONTINUE)


def _prod(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_PROD, which is answered here while vCPUs wait in H_JOIN."""
    target = machine.processor(args[0])
    if target is None:
        return Answer(Status.PARAMETER)
    machine.prod(target)
    return DONE


def _rtas(machine: Machine, caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    return Answer(call_rtas(machine, caller, args[0]))


def _random(machine: Machine, _caller: VcpuThread, _args: tuple[int, ...]) -> Answer:
    return Answer(Status.SUCCESS, (machine.random.getrandbits(64),))


def _set_sprg0(_machine: Machine, caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    regs = caller.vcpu.get_regs()
    regs.sprg[0] = args[0]
    caller.vcpu.set_regs(regs)
    return DONE


def _page_init(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    flags, destination, source = args[:3]
    if destination % PAGE_SIZE or (flags & PageInit.COPY and source % PAGE_SIZE):
        return Answer(Status.PARAMETER)
    try:
        # Both pages are looked at before either is touched: a call that fails changes nothing.
        machine.memory.read(destination, PAGE_SIZE)
        copied = machine.memory.read(source, PAGE_SIZE) if flags & PageInit.COPY else b""
    except AddressError:
        return Answer(Status.PARAMETER)
    if flags & PageInit.ZERO:
        machine.memory.write(destination, bytes(PAGE_SIZE))
    if copied:
        machine.memory.write(destination, copied)
    return DONE


def _set_mode(machine: Machine, caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    flags, resource, value1, value2 = args[:4]
    if resource not in (SetMode.ENDIAN, SetMode.ADDRESS_TRANSLATION):
        return Answer(Status.P2)
    if value1:
        return Answer(Status.P3)
    if value2:
        return Answer(Status.P4)
    if resource == SetMode.ENDIAN:
        if flags > 1:
            return Answer(Status.UNSUPPORTED_FLAG_START)
        _set_lpcr(machine, caller, LPCR_ILE, LPCR_ILE if flags else 0)
        return DONE
    if flags not in (0, 3):
        # The values between were taken out of the architecture, and KVM refuses them too.
        return Answer(Status.UNSUPPORTED_FLAG_START)
    _set_lpcr(machine, caller, LPCR_AIL, flags << LPCR_AIL_SHIFT)
    return DONE


def _set_lpcr(machine: Machine, caller: VcpuThread, mask: int, value: int) -> None:
    def task(vcpu: Vcpu) -> None:
        vcpu.set_one_reg(_LPCR, (vcpu.get_one_reg(_LPCR) & ~mask) | value)

    machine.on_each_vcpu(caller, task)


_PROCESS_TABLE_NEW: Final = 0x18
_PROCESS_TABLE_RADIX: Final = 0x4
_PROCESS_TABLE_GTSE: Final = 0x1
_RADIX_PARTITION: Final = 1 << 63


def _register_process_table(machine: Machine, _caller: VcpuThread, args: tuple[int, ...]) -> Answer:
    """H_REGISTER_PROC_TBL: the address of the guest's process table. Only radix trees are supported."""
    flags, table, page_size, size = args[:4]
    if flags & ~_PROCESS_TABLE_GTSE != _PROCESS_TABLE_NEW | _PROCESS_TABLE_RADIX:
        return Answer(Status.PARAMETER)
    if table & 0xFFF or table >> 60:
        return Answer(Status.P2)
    if page_size:
        return Answer(Status.P3)
    if size > _LARGEST_PROCESS_TABLE:
        return Answer(Status.P4)
    kinds = MmuV3Flag.RADIX | (MmuV3Flag.GTSE if flags & _PROCESS_TABLE_GTSE else 0)
    machine.translate(Translation(kinds, _RADIX_PARTITION | table | size))
    return DONE


def _cpu_characteristics(_machine: Machine, _caller: VcpuThread, _args: tuple[int, ...]) -> Answer:
    """H_GET_CPU_CHARACTERISTICS: this processor does not speculate, so there is nothing to mitigate."""
    return Answer(Status.SUCCESS, (0, 0))


_HANDLERS: Final[dict[int, HypercallFunction]] = {
    **DEVICE_HANDLERS,
    Hcall.PUT_TERM_CHAR: _put_term_char,
    Hcall.GET_TERM_CHAR: _get_term_char,
    Hcall.VASI_STATE: _vasi_state,
    Hcall.JOIN: _join,
    Hcall.PROD: _prod,
    Hcall.RTAS: _rtas,
    Hcall.RANDOM: _random,
    Hcall.SET_SPRG0: _set_sprg0,
    Hcall.PAGE_INIT: _page_init,
    Hcall.SET_MODE: _set_mode,
    Hcall.REGISTER_PROC_TBL: _register_process_table,
    Hcall.GET_CPU_CHARACTERISTICS: _cpu_characteristics,
}
