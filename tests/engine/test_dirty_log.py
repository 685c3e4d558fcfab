"""The log of dirty pages under a guest that runs natively: a page is logged once, until the log is taken."""

from __future__ import annotations

import threading
import time

from chronovisor.engine.native.engine import NativeEngine
from chronovisor.memory.guest_memory import PAGE_SIZE

from .native_guest import Guest

DATA = 0x40000
PAGES = range(DATA // PAGE_SIZE, DATA // PAGE_SIZE + 4)
LOOP = "loop: addi r3,r3,1; std r3,0(r9); std r3,4096(r9); std r3,8192(r9); std r3,12288(r9); b loop"


ENOUGH = 400
"""How often pages are to be found dirty."""


def test_what_follows_the_log_has_every_store() -> None:
    """Pages are copied as the log names them, while the guest stores: in the end the copy is the original."""
    guest = Guest(NativeEngine, LOOP)
    thread = guest.thread(real=True, r9=DATA)
    runner = threading.Thread(target=lambda: guest.engine.run(thread, 1 << 60))
    copy: dict[int, bytes] = {}
    named = 0
    runner.start()
    deadline = time.monotonic() + 60
    while named < ENOUGH and time.monotonic() < deadline:
        for page in guest.memory.dirty.take():
            copy[page] = guest.memory.read(page * PAGE_SIZE, PAGE_SIZE)
            named += 1
    thread.exit_request = 1
    runner.join(60)
    assert not runner.is_alive()
    for page in guest.memory.dirty.take():
        copy[page] = guest.memory.read(page * PAGE_SIZE, PAGE_SIZE)
    assert named >= ENOUGH, "the guest did not store meanwhile"
    for page in PAGES:
        assert copy[page] == guest.memory.read(page * PAGE_SIZE, PAGE_SIZE)


def test_a_page_is_logged_again_after_the_log_was_taken() -> None:
    guest = Guest(NativeEngine, LOOP)
    thread = guest.thread(r9=DATA)
    for _ in range(3):
        guest.advance(thread, 6)
        assert guest.memory.dirty.take() == list(PAGES)
    assert guest.memory.dirty.take() == []
