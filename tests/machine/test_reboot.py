"""What becomes of a guest that asks for a reboot."""

from __future__ import annotations

import threading
import time
import tracemalloc
from pathlib import Path

import pytest
from elf_files import program

from chronovisor.machine import EndReason, Guest, Host
from chronovisor.machine.host import CLOCKS, start_with
from chronovisor.migration.link import Link
from chronovisor.migration.move import move
from chronovisor.migration.snapshot import snapshot
from chronovisor.migration.snapshot_restore import restore

SPEAKER = program("""
    lis r20,word@h; ori r20,r20,word@l
    ld r6,0(r20); addi r7,r6,1; std r7,0(r20)
    addi r6,r6,0x41; sldi r6,r6,56
    li r3,0x58; li r4,0; li r5,1
    sc 1
here: li r6,0x2e; sldi r6,r6,56
    li r3,0x58; li r4,0; li r5,1
    sc 1
    lis r20,here@h; ori r20,r20,here@l
    lis r21,0x38c0; ori r21,r21,0x2f
    stw r21,0(r20); dcbst r0,r20; sync; icbi r0,r20; isync
    lis r4,start@h; ori r4,r4,start@l
    bl rtas
wait: li r3,0x54; li r4,0
    sc 1
    cmpdi r4,0
    beq wait
    srdi r5,r5,56
    cmpdi r5,0x71
    lis r4,reboot@h; ori r4,r4,reboot@l
    bne call
    lis r4,off@h; ori r4,r4,off@l
call: bl rtas
    b .
rtas: lis r3,0; ori r3,r3,0xf000
    sc 1
    blr
second: b .
    .balign 8
word: .quad 0
reboot: .byte 0,0,0x20,9, 0,0,0,0, 0,0,0,1
    .space 4
off: .byte 0,0,0x20,2, 0,0,0,2, 0,0,0,1
    .space 12
start: .byte 0,0,0x20,5, 0,0,0,3, 0,0,0,1, 0,0,0,1
       .byte (second >> 24) & 255, (second >> 16) & 255, (second >> 8) & 255, second & 255, 0,0,0,0
       .space 4
""")
"""Prints A and a dot, both of which it changes in its memory for the next time, and starts the second vCPU.

Then `r` reboots it and `q` powers it off.
"""


def speaker(host: Host, typed: str, reboots: bool = True) -> Guest:
    guest = host.boot(SPEAKER, smp=2, reboots=reboots, tb_offset=1 << 40)
    type_at_dots(guest, typed)
    return guest


def type_at_dots(guest: Guest, typed: str) -> None:
    keys = iter(typed)
    # A call takes up to 16 characters: each is typed once the guest is there to read it.
    guest.console.watch(lambda: guest.console.type(next(keys, "")) if guest.console_text[-1] == "." else None)


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_reboot_begins_with_the_same_memory_and_a_later_time(clock: str) -> None:
    with Host(clock=clock, cores=2) as host:
        guest = speaker(host, "rrq")
        before = guest.timebase()
        end = guest.run(60)
        assert (end.reason, guest.console_text) == (EndReason.POWER_OFF, "A.A.A.")
        assert guest.get("TB_OFFSET") == 1 << 40
        assert guest.get("DEC_EXPIRY") - before.value > 0x7FFF_FFFF


@pytest.mark.parametrize("clock", CLOCKS)
def test_its_owner_can_have_it_begin_again_while_it_runs_and_while_it_is_paused(clock: str) -> None:
    with Host(clock=clock, cores=2) as host:
        guest = speaker(host, "")
        asked: list[bool] = []
        guest.platform.on_restart = asked.append
        assert guest.run_until("A.")
        guest.platform.reboot(by_guest=False)
        assert guest.run_until("A.A.")
        guest.resume()
        with guest.holding:
            guest.platform.reboot(by_guest=False)
        assert guest.run_until("A.A.A.")
        type_at_dots(guest, "")
        guest.console.type("r")
        assert guest.run_until("A.A.A.A.")
        guest.console.type("q")
        assert guest.run(60).reason is EndReason.POWER_OFF
        assert (asked, guest.console_text) == ([False, False, True], "A.A.A.A.")


def test_without_reboots_a_reboot_is_the_end() -> None:
    with Host(cores=2) as host:
        end = speaker(host, "r", reboots=False).run(60)
        assert (end.reason, end.message) == (EndReason.REBOOT, "the guest rebooted")


def test_a_guest_that_moved_ends_at_a_reboot_and_says_why() -> None:
    with Host(clock="virtual", cores=2) as host, Host(clock=host.clock.source, cores=2) as other:
        guest, _ = move(speaker(host, "r"), other, Link())
        end = guest.run(60)
        assert end.reason is EndReason.REBOOT
        assert "because its kernel stayed where it began" in end.message


def test_a_guest_can_be_paused_again_and_again_while_it_reboots() -> None:
    with Host(cores=2) as host:
        guest = speaker(host, "r" * 60 + "q")
        held = 0

        def hold() -> None:
            nonlocal held
            while guest.end is None:
                with guest.held():
                    held += 1
                # A guest that is held at once again executes nothing in between.
                time.sleep(0.001)

        holder = threading.Thread(target=hold)
        holder.start()
        end = guest.run(60)
        holder.join(60)
        assert (end.reason, guest.console_text) == (EndReason.POWER_OFF, "A." * 61)
        assert held


def on_disk(directory: Path) -> Path:
    file = directory / "speaker"
    file.write_bytes(SPEAKER)
    return file


def test_a_guest_that_came_begins_with_the_kernel_named_here(tmp_path: Path) -> None:
    """After a move, and restored from a file, with an empty memory and its vCPUs as at a first start."""
    with Host(clock="virtual", cores=2) as host, Host(clock=host.clock.source, cores=2) as other:
        other.after_reboot = start_with(on_disk(tmp_path))
        guest, _ = move(speaker(host, "rrq"), other, Link())
        before = guest.timebase()
        end = guest.run(60)
        assert (end.reason, guest.console_text) == (EndReason.POWER_OFF, "A.A.A.")
        assert guest.get("DEC_EXPIRY") - before.value > 0x7FFF_FFFF
    with Host(clock="virtual", cores=2) as host:
        snapshot(host.boot(SPEAKER, smp=2), tmp_path / "saved")
        host.after_reboot = start_with(on_disk(tmp_path))
        guest, _ = restore(tmp_path / "saved", host)
        type_at_dots(guest, "rq")
        assert guest.run(60).reason is EndReason.POWER_OFF
        assert guest.console_text == "A.A."


def test_a_reboot_begins_with_the_file_of_the_start_or_says_why_not(tmp_path: Path) -> None:
    """A file of the same name is another file; one that was written to is not what the guest began with."""
    file = on_disk(tmp_path)
    with Host(cores=2) as host:
        guest = host.boot(file, smp=2)
        (tmp_path / "new").write_bytes(b"another kernel")
        (tmp_path / "new").replace(file)
        type_at_dots(guest, "rq")
        assert (guest.run(60).reason, guest.console_text) == (EndReason.POWER_OFF, "A.A.")
        file = on_disk(tmp_path)
        guest = host.boot(file, smp=2)
        with file.open("r+b") as written:
            written.truncate(100)
        type_at_dots(guest, "r")
        end = guest.run(60)
        assert end.reason is EndReason.REBOOT
        assert end.message == (
            f"the guest rebooted; it cannot start again: {file}: the file has changed since the guest began"
        )


def test_files_are_read_straight_into_the_guest(tmp_path: Path) -> None:
    with Host() as host:
        initrd = tmp_path / "initrd"
        initrd.write_bytes(bytes(16 << 20))
        kept = tracemalloc.start() or host.boot(on_disk(tmp_path), initrd=initrd)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
        tracemalloc.stop()
        kept.close()
