"""What a real kernel answered once, asked of a provider: request by request.

The data are transcripts of Linux 6.1's kvm-hv on three machines: POWER9 where KVM is nested, POWER9 where the
kernel itself writes TBU40, and POWER8 with eight threads a core. Each line is a request and its answer.
"""

from __future__ import annotations

import errno
import json
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Set
from pathlib import Path
from typing import Any

from chronovisor.isa.bits import LPCR
from chronovisor.kvm.errors import KvmError
from chronovisor.kvm.exits import HcallExit
from chronovisor.kvm.ids import ONE_REG_BY_NAME, Cap
from chronovisor.kvm.interface import System, Vcpu, Vm
from chronovisor.memory.guest_memory import GuestMemory

DATA = Path(__file__).parent / "transcripts"
Record = dict[str, Any]

NOT_BUILT = {
    "PPC_NESTED_HV",
    "SPAPR_TCE",
    "PPC_IRQ_XIVE",
    "IOEVENTFD",
    "PPC_RTAS",
    "PPC_RPT_INVALIDATE",
}
"""Capabilities of the kernel that the embedded hypervisor has not, and says so."""

NO_REQUESTS = {
    *("meta", "host", "insmod", "open", "topology", "done"),
    # About file descriptors, user addresses and an ioctl that the interface has not.
    *("bad_addr", "wrong_fd", "KVM_GET_REG_LIST"),
}

GUEST = (
    *(0x2C3F0000, 0x41820008, 0x7FD603A6),  # cmpdi r31,0; beq 1f; mtdec r30
    *(0x7C8C42A6, 0x7CB602A6, 0x7CD1D2A6),  # 1: mftb r4; mfdec r5; mfvtb r6
    *(0x7CF54AA6, 0x7D144AA6, 0x7D2C42A6),  # mfpurr r7; mfspurr r8; mftb r9
    *(0x38600058, 0x44000022, 0x4BFFFFD4),  # li r3,0x58; sc 1; b 0
)
HANDLER = (0x38800900, 0x7CAC42A6, 0x7CD602A6, 0x7CFA02A6, 0x38600058, 0x44000022, 0x48000000)
WAITER = (0x7FD603A6, 0x7D2C42A6, 0x48000000)  # mtdec r30; mftb r9; b .
MASK32, MASK64 = (1 << 32) - 1, (1 << 64) - 1
GRANULE = 1 << 24


def machine_code(words: tuple[int, ...]) -> bytes:
    return b"".join(struct.pack("<I", word) for word in words)


def number(text: str) -> int:
    return int(text, 16)


def attempt(call: Callable[[], int | None]) -> tuple[str, int]:
    """The errno's name as the transcripts have it ("0" for success), and the value."""
    try:
        return "0", call() or 0
    except KvmError as error:
        return errno.errorcode[error.errno or 0], 0


def records(name: str) -> list[Record]:
    """A transcript's lines."""
    return [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text().splitlines()]


class Machine:
    """A virtual machine and its vCPUs, as the recording program kept them."""

    def __init__(self, system: System) -> None:
        self.vm: Vm = system.create_vm(0)
        self.memory = GuestMemory(1 << 20)
        self.vm.set_user_memory_region(0, 0, 0, self.memory)
        self.vcpus: dict[int, Vcpu] = {}

    def create_vcpu(self, vcpu_id: int) -> None:
        self.vcpus[vcpu_id] = self.vm.create_vcpu(vcpu_id)
        self.vcpus[vcpu_id].enable_cap(Cap.PPC_PAPR)

    def get(self, name: str, vcpu: int = 0) -> int:
        return self.vcpus[vcpu].get_one_reg(ONE_REG_BY_NAME[name].id)

    def set(self, name: str, value: int, vcpu: int = 0) -> None:
        self.vcpus[vcpu].set_one_reg(ONE_REG_BY_NAME[name].id, value)


class Replay:
    """Asks what a transcript asks, in its order, and compares the answers.

    `lacks` are capabilities that this provider says it has not. Where `exact`, time passes by instructions
    alone, so that what a guest reads is known to the tick; else it is known to the time that its run took.
    `in_step` says whether the host's cores are as they should be outside a guest.
    """

    def __init__(
        self,
        system: System,
        name: str,
        lacks: Set[str] = frozenset(),
        exact: bool = True,
        in_step: Callable[[], bool] = lambda: True,
    ) -> None:
        self.system = system
        self.records = records(name)
        self.answers: dict[str, object] = {}
        """What this provider said, by what it was asked."""
        self.wrong: dict[str, tuple[object, object]] = {}
        """Where that was not what the kernel had said: both."""
        self.asked: Counter[str] = Counter()
        self._lacks = lacks
        self._exact = exact
        self._in_step = in_step
        self.current = self.main = Machine(self.system)
        self.initial_lpcr = 0

    def replay(self) -> None:
        """Ask everything."""
        for record in self.records:
            op = record["op"]
            if op in NO_REQUESTS:
                continue
            for what, ours, theirs in getattr(self, op)(record):
                key = f"{record['seq']} {op}: {what}"
                self.answers[key] = ours
                if ours != theirs:
                    self.wrong[key] = (ours, theirs)
            self.asked[op] += 1

    Answers = Iterator[tuple[str, object, object]]

    # The system and its machines

    def check_extension(self, r: Record) -> Answers:
        expected = 0 if r["cap"] in self._lacks else r["value"]
        if r["cap"] == "NR_VCPUS":
            # The POWER8 machine had one thread a core; that it had eight is what its kernel was made to
            # believe.
            expected *= self.system.host.threads_per_core
        yield r["cap"], self.system.check_extension(r["num"]), expected

    def create_vm_type(self, r: Record) -> Answers:
        error, _ = attempt(lambda: self.system.create_vm(r["type"]) and 0)
        yield f"type {r['type']}", error, r["errno"]

    def create_vm(self, r: Record) -> Answers:
        self.current = Machine(self.system)
        # The one that most of the requests go to is made after those that try the SMT modes.
        if r["seq"] == 106:
            self.main = self.current
        yield "region", 0, r["memreg"]

    def enable_cap_smt(self, r: Record) -> Answers:
        error, _ = attempt(lambda: self.current.vm.enable_cap(Cap.PPC_SMT, r["smt"], r["flags"]))
        yield f"mode {r['smt']}", error, r["errno"]
        if "check_after" in r:
            yield "check after", self.current.vm.check_extension(Cap.PPC_SMT), r["check_after"]

    def create_vcpu(self, r: Record) -> Answers:
        if r["seq"] == 427:
            self.current = self.main
        error, _ = attempt(lambda: self.current.create_vcpu(r["id"]))
        yield f"id {r['id']}", error, r["errno"]

    # Registers

    def get_sregs(self, r: Record) -> Answers:
        yield "pvr", self.current.vcpus[0].get_sregs().pvr, number(r["pvr"])

    def reg_probe(self, r: Record) -> Answers:
        vcpu, register = self.main.vcpus[0], number(r["id"])
        error, value = attempt(lambda: vcpu.get_one_reg(register))
        yield f"get {r['reg']}", error, r["get_errno"]
        if error == "0":
            theirs = (
                (number(r["value"]) << 64) | number(r["value_hi"]) if r["size"] == 16 else number(r["value"])
            )
            yield f"value of {r['reg']}", value, theirs
        error, _ = attempt(lambda: vcpu.set_one_reg(register, value))
        yield f"set {r['reg']}", error, r["set_same_errno"]

    def tb_offset_initial(self, r: Record) -> Answers:
        yield "value", self.main.get("TB_OFFSET"), number(r["get"])

    def tb_offset_set_get(self, r: Record) -> Answers:
        error, _ = attempt(lambda: self.main.set("TB_OFFSET", number(r["set"])))
        yield f"set {r['set']}", error, r["set_errno"]
        error, value = attempt(lambda: self.main.get("TB_OFFSET"))
        yield f"after {r['set']}", (error, value), (r["get_errno"], number(r["get"]))

    def unaligned_addr(self, r: Record) -> Answers:
        yield from self.tb_offset_set_get(r)

    def bad_id(self, r: Record) -> Answers:
        vcpu, register = self.main.vcpus[0], number(r["id"])
        yield f"get {r['what']}", attempt(lambda: vcpu.get_one_reg(register))[0], r["get_errno"]
        yield f"set {r['what']}", attempt(lambda: vcpu.set_one_reg(register, 0))[0], r["set_errno"]

    def set_get(self, r: Record) -> Answers:
        name = "LPCR" if r["reg"] == "LPCR(32)" else r["reg"]
        # The first DEC_EXPIRY is the moment at which the offset was first set: the clock's, not an answer.
        if "before" in r and not (name == "DEC_EXPIRY" and r["set"] == "0x0"):
            yield f"{name} before", self.main.get(name), number(r["before"])
        error, _ = attempt(lambda: self.main.set(name, self._wide(r["set"])))
        yield f"set {name} {r['set']}", error, r["set_errno"]
        error, value = attempt(lambda: self.main.get(name))
        yield f"{name} after {r['set']}", (error, value), (r["get_errno"], self._wide(r["get"]))
        if "lpcr64_now" in r:
            yield "all of LPCR", self.main.get("LPCR_64"), number(r["lpcr64_now"])
            self.main.set("LPCR_64", self.initial_lpcr)

    @staticmethod
    def _wide(text: str | list[str]) -> int:
        return (number(text[0]) << 64) | number(text[1]) if isinstance(text, list) else number(text)

    def dec_expiry_vs_offset(self, r: Record) -> Answers:
        # The offset was set by the record before this one; here the order is undone for the expiry.
        expiry = number(r.get("set_with_offset0") or r["set_with_offset5Q"])
        self.main.set("TB_OFFSET", 0 if "set_with_offset0" in r else 5 * GRANULE)
        self.main.set("DEC_EXPIRY", expiry)
        self.main.set("TB_OFFSET", number(r["offset"]))
        yield "expiry", self.main.get("DEC_EXPIRY"), number(r["get"])

    def lpcr_initial(self, r: Record) -> Answers:
        self.initial_lpcr = number(r["lpcr64"])
        yield "LPCR", self.main.get("LPCR_64"), number(r["lpcr64"])

    def lpcr_for_ile(self, r: Record) -> Answers:
        yield from self.lpcr_initial(r)
        self.main.set("LPCR_64", number(r["lpcr64"]) | LPCR.ILE)

    def lpcr64_bit_scan(self, r: Record) -> Answers:
        base, accepted, changed = number(r["base"]), 0, 0
        for bit in range(64):
            error, _ = attempt(lambda bit=bit: self.main.set("LPCR_64", base ^ (1 << bit)))
            accepted |= (error == "0") << bit
            changed |= (self.main.get("LPCR_64") ^ base) & (1 << bit)
            self.main.set("LPCR_64", base)
        yield "accepted", accepted, number(r["set_ok_mask"])
        yield "changed", changed, number(r["bits_that_change"])

    def set_LD(self, r: Record) -> Answers:
        error, _ = attempt(lambda: self.main.set("LPCR_64", self.main.get("LPCR_64") | LPCR.LD))
        yield "set", (error, self.main.get("LPCR_64")), (r["errno"], number(r["lpcr64"]))

    # Sharing

    def vcore_share(self, r: Record) -> Answers:
        who, name = r["set_on_vcpu"], r["reg"]
        first = {"TB_OFFSET": 0x1000_0000, "VTB": 0x777, "DEC_EXPIRY": 0x555}
        self.current.set(name, first[name] * (1 + (0, 3, 7).index(who)), who)
        yield f"{name} of {who}", [self.current.get(name, n) for n in range(8)], [*map(number, r["get_all"])]

    def smt_share(self, r: Record) -> Answers:
        yield from self._share("TB_OFFSET", r)

    def smt_share_vtb(self, r: Record) -> Answers:
        yield from self._share("VTB", r)

    def smt_share_lpcr(self, r: Record) -> Answers:
        yield from self._share("LPCR_64", r)
        self.current.set("LPCR_64", number(r["get_all"][1]))

    def _share(self, name: str, r: Record) -> Answers:
        self.current.set(name, number(r["value"]), r["set_on_vcpu"])
        yield name, [self.current.get(name, n) for n in range(8)], [*map(number, r["get_all"])]

    def new_vcpu_offset(self, r: Record) -> Answers:
        yield "vcpu 0", self.main.get("TB_OFFSET", 0), number(r["vcpu0"])
        yield "vcpu 1", self.main.get("TB_OFFSET", 1), number(r["vcpu1"])

    # Runs

    def run_guest(
        self, machine: Machine, vcpu: int = 0, dec: int | None = None
    ) -> tuple[int, HcallExit, int]:
        """Run the guest once: the host's time before, the exit, the host's time after."""
        machine.memory.write(0, machine_code(GUEST))
        thread = machine.vcpus[vcpu]
        regs = thread.get_regs()
        regs.pc, regs.msr = 0, 0x8000_0000_0000_1001
        regs.gpr[31], regs.gpr[30] = (0, 0) if dec is None else (1, dec & MASK64)
        thread.set_regs(regs)
        before = self.system.clock.now().value
        ended = thread.run()
        after = self.system.clock.now().value
        assert isinstance(ended, HcallExit), ended
        return before, ended, after

    def _check_run(self, r: Record, machine: Machine, dec: int | None) -> Answers:
        before, ended, after = self.run_guest(machine, r["vcpu"], dec)
        offset = machine.get("TB_OFFSET", r["vcpu"])
        first, second, decrementer = ended.args[0], ended.args[5], ended.args[1]
        width = MASK64 if machine.get("LPCR_64", r["vcpu"]) & LPCR.LD else MASK32
        expiry = machine.get("DEC_EXPIRY", r["vcpu"])
        # One instruction, 256 ticks, lies between the reading of TB and that of DEC. A real processor takes
        # as long as it takes, and the kernel reads both again, one after the other, when the guest is out.
        late = (expiry - first - decrementer) & width
        yield "exit", (int(ended.reason), ended.nr), (r["exit"], number(r["nr"]))
        yield "offset", offset, number(r["tb_offset"])
        yield "bounds", (first - offset - before) & MASK64 <= after - before, r["in_bounds"]
        yield "second reading", (second - first) & MASK64 < after - before, True
        yield "DEC + TB is the expiry", late == 256 if self._exact else late < after - before, True

    def run(self, r: Record) -> Answers:
        note = r["note"]
        machine, dec = self.main, None
        if note.startswith("smt8"):
            machine = self.current
        elif note.startswith(("destination", "migration destination")):
            machine = self.current
            if note.startswith("destination"):
                machine.set("TB_OFFSET", number(r["tb_offset"]))
        if mtdec := re.search(r"guest mtdec (-?0x[0-9a-f]+)", note):
            dec = int(mtdec[1], 16)
        now = self.system.clock.now().value + machine.get("TB_OFFSET", r["vcpu"])
        if asked := re.search(r"DEC_EXPIRY=guestTB([+-]\w+)", note):
            machine.set("DEC_EXPIRY", (now + int(asked[1], 0)) & MASK64)
        for name, value in re.findall(r"(VTB|PURR|SPURR)=(0x[0-9a-f]+)", note):
            machine.set(name, int(value, 16))
        if note == "LD=0 again":
            machine.set("LPCR_64", machine.get("LPCR_64") & ~int(LPCR.LD))
        yield from self._check_run(r, machine, dec)

    def monotonic_series(self, r: Record) -> Answers:
        offset = number(r["offset"])
        self.main.set("TB_OFFSET", offset)
        backward = out_of_bounds = last = 0
        for _ in range(100):
            before, ended, after = self.run_guest(self.main)
            backward += ended.args[0] < last or ended.args[5] < ended.args[0]
            out_of_bounds += ended.args[0] - offset - before > after - before
            last = ended.args[5]
        yield "backward, out of bounds", (backward, out_of_bounds), (r["backward"], r["out_of_host_bounds"])

    def alternate_offsets(self, r: Record) -> Answers:
        out_of_bounds = 0
        for n in range(100):
            offset = 0 if n & 1 else GRANULE * (1 + n * 7919)
            self.main.set("TB_OFFSET", offset)
            before, ended, after = self.run_guest(self.main)
            out_of_bounds += ended.args[0] - offset - before > after - before
        yield "out of bounds", out_of_bounds, r["out_of_host_bounds"]

    def host_tb_continuity(self, r: Record) -> Answers:
        self.main.set("TB_OFFSET", 0x7F00_0000_0000_0000)
        backward, last = 0, self.system.clock.now().value
        for _ in range(100):
            _, _, after = self.run_guest(self.main)
            backward += after < last or not self._in_step()
            last = after
        yield "host went back", backward, r["host_backward"]

    def migrate(self, r: Record) -> Answers:
        expiry = self.main.get("DEC_EXPIRY")
        self.current.set("TB_OFFSET", number(r["wanted_offset"]))
        self.current.set("DEC_EXPIRY", expiry)
        got = self.current.get("TB_OFFSET")
        yield "offset", got, number(r["got_offset"])
        yield "rounding", got - number(r["wanted_offset"]), r["roundup_ticks"]

    def dec_interrupt(self, r: Record) -> Answers:
        machine = self.main
        machine.memory.write(0x900, machine_code(HANDLER))
        machine.memory.write(0x2000, machine_code(WAITER))
        machine.set("TB_OFFSET", number(r["offset"]))
        stale = not r["dec_expiry_rewritten_after_offset"]
        if not stale:
            now = self.system.clock.now().value + machine.get("TB_OFFSET")
            machine.set("DEC_EXPIRY", (now + 0x7FFF_0000) & MASK64)
        thread = machine.vcpus[0]
        regs = thread.get_regs()
        regs.pc, regs.msr = 0x2000, 0x8000_0000_0000_9001
        regs.gpr[:] = [0] * 32
        regs.gpr[30] = r["mtdec_ticks"]
        thread.set_regs(regs)
        before = self.system.clock.now()
        ended = thread.run()
        took = (self.system.clock.now() - before).value
        assert isinstance(ended, HcallExit), ended
        begun = thread.get_regs().gpr[9]
        yield "vector", ended.args[0], number(r["vector"])
        yield "DEC is negative", ended.args[2] >> 31, 1
        if not stale:
            yield "SRR0", ended.args[3], number(r["srr0"])
            late = (ended.args[1] - begun - r["mtdec_ticks"]) & MASK64
            yield "neither early nor too late", late <= (3 * 256 if self._exact else took), True
