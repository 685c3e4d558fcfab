"""The first start on a machine: a guest runs while its native code is compiled, and without it if need be."""

from __future__ import annotations

import errno
import logging
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chronovisor.engine.concrete import ConcreteEngine, Reason
from chronovisor.engine.native import code_cache, compile_server, compile_service, compiler, pages, sets
from chronovisor.engine.native import library as loaded
from chronovisor.engine.native.compile_service import CompileService, Urgency
from chronovisor.engine.native.engine import NativeEngine
from chronovisor.engine.native.library import HandlerLibrary
from chronovisor.engine.native.sets import HandlerSet
from chronovisor.engine.native.state import NativeThread
from chronovisor.engine.state import Thread
from chronovisor.isa.assembly import assemble
from chronovisor.isa.decode import decode
from chronovisor.isa.instruction import INSTRUCTIONS

from .native_guest import Guest, registers

MODE = (True, False)
LOOP = "loop: addi r3,r3,1; xor r4,r4,r3; mullw r5,r3,r4; stw r5,0(r9); bc 16,0,loop; sc 1"


class Later:
    """A compile service whose answers come when a test gives them, from the machine's real cache."""

    def __init__(self) -> None:
        self.asked: list[tuple[HandlerSet, Callable[[bytes | None], None]]] = []

    def ask(
        self,
        asked: dict[str, Any],
        take: Callable[[bytes | None], None],
        urgency: Urgency = Urgency.NOW,
        is_awaited: bool = False,
    ) -> None:
        self.asked.append((_wanted(asked), take))

    def give(self, fails: bool = False) -> list[str]:
        """Answer all that was asked for; the names of the sets."""
        asked, self.asked = self.asked, []
        for wanted, take in asked:
            take(None if fails else _code(wanted))
        return [wanted.name for wanted, _ in asked]


def _wanted(asked: dict[str, Any]) -> HandlerSet:
    """The set that a request is for."""
    mode = asked["mode"]
    for known in (sets.everyday(mode), sets.paired(mode)):
        if compile_server.request(known) == asked:
            return known
    ((number, values),) = asked["keys"]
    return sets.single((INSTRUCTIONS[number], values), mode)


_KEPT = code_cache.kept


def _code(wanted: HandlerSet) -> bytes:
    found = _KEPT(wanted.file_name, compiler.fingerprint())
    return found or compiler.compile_handlers(wanted.keys, wanted.pairs, wanted.mode)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    loaded.library(MODE).ensure()
    service = Later()
    monkeypatch.setattr(loaded, "service", lambda: service)
    monkeypatch.setattr(code_cache, "kept", lambda name, fingerprint: None)
    libraries: dict[tuple[bool, bool], HandlerLibrary] = {}

    def library(mode: tuple[bool, bool]) -> HandlerLibrary:
        if mode not in libraries:
            libraries[mode] = HandlerLibrary(mode)
        return libraries[mode]

    monkeypatch.setattr(pages, "library", library)
    return service


def _state(guest: Guest, thread: Thread) -> object:
    return registers(thread), guest.memory.dirty.take()


def _after(engine: type[ConcreteEngine], steps: int) -> object:
    guest = Guest(engine, LOOP, ready=False)
    thread = guest.thread(r9=0x40000, CTR=100_000)
    guest.advance(thread, steps)
    return _state(guest, thread)


def test_a_guest_runs_before_its_handlers_are_there_and_goes_over_to_them(later: Later) -> None:
    guest = Guest(NativeEngine, LOOP, ready=False)
    thread = guest.thread(r9=0x40000, CTR=100_000)
    guest.advance(thread, 3_001)
    assert not thread.begin, "native code has run"  # type: ignore[attr-defined]
    assert later.give() == ["everyday", "pairs"]
    guest.advance(thread, 3_001)
    assert thread.begin  # type: ignore[attr-defined]
    assert _state(guest, thread) == _after(ConcreteEngine, 6_002)


def test_records_made_without_a_handler_get_it_when_it_comes(later: Later) -> None:
    guest = Guest(
        NativeEngine, "loop: addme. r6,r3; mulldo r7,r3,r3; addi r3,r3,1; bc 16,0,loop", ready=False
    )
    thread = guest.thread(CTR=100_000)
    guest.advance(thread, 1)
    assert later.give() == ["everyday", "pairs"]
    guest.advance(thread, 1_000)
    (name,) = later.give()
    assert name.startswith("i_"), "mulldo alone has no everyday handler"
    before = thread.executed
    stop = guest.engine.run(thread, 4_000)
    # In one piece: no instruction was left to the concrete evaluator, each of which begins a piece anew.
    assert (stop.reason, thread.executed - before) == (Reason.BUDGET, 4_000)
    assert thread.begin == 4_000  # type: ignore[attr-defined]


def test_the_seldom_used_come_together_if_they_were_compiled_ahead(
    later: Later, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [_single(text).keys[0] for text in ("mulldo r7,r3,r3", "addmeo r6,r3")]
    asked: list[str] = []

    def kept(name: str, fingerprint: str) -> bytes | None:
        asked.append(name)
        ahead = sets.seldom(MODE)
        return compiler.compile_handlers(ahead.keys, (), MODE) if name == ahead.file_name else None

    text = "loop: mulldo r7,r3,r3; addmeo r6,r3; nego r5,r3; addi r3,r3,1; bc 16,0,loop"
    guest = Guest(NativeEngine, text, ready=False)
    thread = guest.thread(CTR=100_000)
    guest.advance(thread, 1)
    monkeypatch.setattr(sets, "seldom_keys", lambda: dict.fromkeys(keys))
    monkeypatch.setattr(code_cache, "kept", kept)
    assert later.give() == ["everyday", "pairs"]
    guest.advance(thread, 1_000)
    # The one that is not among them is compiled alone. They are looked for once.
    assert later.give() == [_single("nego r5,r3").name]
    assert asked.count(sets.seldom(MODE).file_name) == 1
    assert isinstance(guest.engine, NativeEngine)
    assert isinstance(thread, NativeThread)
    assert set(keys) <= guest.engine.pages_of(thread).library.handlers.keys()


def test_a_guest_runs_to_its_end_if_nothing_can_be_compiled(later: Later) -> None:
    guest = Guest(NativeEngine, LOOP, ready=False)
    thread = guest.thread(r9=0x40000, CTR=100_000)
    guest.advance(thread, 10)
    assert later.give(fails=True) == ["everyday", "pairs"]
    guest.advance(thread, 3_000)
    assert _state(guest, thread) == _after(ConcreteEngine, 3_010)
    assert not later.asked, "what failed is asked for again"


@pytest.mark.parametrize("real", [True, False])
def test_a_request_ends_a_run_that_waits_for_its_handlers(later: Later, real: bool) -> None:
    guest = Guest(NativeEngine, "b .")
    thread = guest.thread(real=real)
    thread.exit_request = 1
    stop = guest.engine.run(thread, 1 << 60)
    assert stop.reason is Reason.BUDGET
    assert thread.executed <= ConcreteEngine.budget


# The compiling process


def _ask(service: CompileService, *wanted: HandlerSet) -> list[bytes | None]:
    done = threading.Event()
    answers: list[bytes | None] = []

    def take(code: bytes | None) -> None:
        answers.append(code)
        if len(answers) == len(wanted):
            done.set()

    for one in wanted:
        service.ask(compile_server.request(one), take, is_awaited=True)
    assert done.wait(60)
    return answers


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHRONOVISOR_CACHE", str(tmp_path / "code"))
    monkeypatch.setattr(code_cache, "BROUGHT", tmp_path / "nothing")
    return tmp_path / "code"


def _single(text: str) -> HandlerSet:
    word = int.from_bytes(assemble(text), "big")
    found = decode(word)
    assert found is not None
    return sets.single((found, found.meaning_statics(word)), MODE)


def test_another_process_compiles_what_this_one_would(cache: Path) -> None:
    wanted = _single("addo r3,r4,r5"), _single("mfspr r3,AMR")
    codes = _ask(CompileService(), *wanted)
    assert codes == [compiler.compile_handlers(one.keys, one.pairs, one.mode) for one in wanted]


def test_a_process_with_many_open_files_has_code_compiled(cache: Path) -> None:
    """`select`, unlike `poll`, takes no descriptor from 1,024 on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    files = [os.eventfd(0) for _ in range(1100)]
    try:
        assert max(files) > 1100
        wanted = _single("addo r3,r4,r5")
        assert _ask(CompileService(), wanted) == [
            compiler.compile_handlers(wanted.keys, wanted.pairs, wanted.mode)
        ]
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_several_processes_compile_side_by_side(cache: Path) -> None:
    """As many as are wanted at once, up to a number. Each answer comes to the one who asked."""
    wanted = [_single(text) for text in ("addo r3,r4,r5", "subfo r3,r4,r5", "mfspr r3,AMR", "nego r3,r4")]
    service, answers, done = CompileService(processes=3), {}, threading.Barrier(len(wanted) + 1)

    def ask(one: HandlerSet) -> None:
        (answers[one.file_name],) = _ask(service, one)
        done.wait(60)

    for one in wanted:
        threading.Thread(target=ask, args=(one,), daemon=True).start()
    done.wait(60)
    codes = {one.file_name: compiler.compile_handlers(one.keys, one.pairs, one.mode) for one in wanted}
    assert answers == codes
    assert 2 <= len({child._process.pid for child in service._children}) <= 3
    alone = CompileService()
    assert _ask(alone, *wanted[:2]) == [codes[one.file_name] for one in wanted[:2]]
    assert len(alone._children) == 1


def test_what_was_compiled_is_kept(later: Later, cache: Path) -> None:
    guest = Guest(NativeEngine, "addo r3,r4,r5", ready=False)
    guest.advance(guest.thread(), 1)
    wanted = [one for one, _ in later.asked]
    later.give()
    for one in wanted:
        assert _KEPT(one.file_name, compiler.fingerprint()) == _code(one)
    assert len(wanted) == 2


#: What a compiling process does instead, and what is said of it. An answer that is damaged, or is too long to
#: be one, must not come to the linker, which may abort.
_DEATHS = {
    "os.abort()": "ended by signal 6",
    "raise SystemExit('no more memory')": "ended with status 1: no more memory",
    "print('?' * 4)": "ended with status 0",
    "print('?' * 4000)": "answered with something else",
    "sys.stdout.buffer.write(bytes([9, 0, 0, 0, 0, 0, 0, 0]) + bytes(41))": "answered with something else",
    "time.sleep(600)": "did not answer for 1 s",
    "sys.stdout.buffer.write(bytes(20)); sys.stdout.flush(); time.sleep(600)": "did not answer for 1 s",
}


@pytest.mark.parametrize("death", _DEATHS)
def test_a_compiling_process_that_fails_costs_nothing_but_speed(
    cache: Path, death: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = cache.parent / "python"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import os, sys, time; {death}"\n')
    program.chmod(0o700)
    monkeypatch.setattr(compile_service.sys, "executable", str(program))
    if "sleep" in death:
        monkeypatch.setattr(compile_service, "_MOST_SECONDS", 1.0)
        monkeypatch.setattr(compile_service, "_MOST_FAILURES", 1)
    wanted = _single("addo r3,r4,r5")
    assert _ask(CompileService(), *[wanted] * 5) == [None] * 5
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "native code cannot be compiled" in caplog.text
    assert _DEATHS[death] in caplog.text


def _no_file(*_: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def _no_answer(*_: object) -> bytes:
    raise ArithmeticError("nobody thought of it")


@pytest.mark.parametrize(
    ("owner", "name", "mistake", "said"),
    [
        (compile_service.tempfile, "TemporaryFile", _no_file, "Too many open files"),
        (compile_service._Child, "compile", _no_answer, "nobody thought of it"),
    ],
)
def test_whatever_goes_wrong_each_request_is_answered(
    cache: Path,
    owner: object,
    name: str,
    mistake: Callable[..., object],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(owner, name, mistake)
    service = CompileService()
    assert _ask(service, *[_single("addo r3,r4,r5")] * 5) == [None] * 5
    assert said in caplog.text
    assert not service._children


def test_code_that_cannot_be_linked_is_not_kept_and_costs_nothing_but_speed(
    later: Later, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    guest = Guest(NativeEngine, LOOP, ready=False)
    thread = guest.thread(r9=0x40000, CTR=100_000)
    guest.advance(thread, 10)
    for _, take in later.asked:
        CompileService._hand_over(b"no object file", take)
    assert [message.split(" (")[0] for message in caplog.messages] == ["compiled code cannot be used"] * 2
    guest.advance(thread, 3_000)
    assert _state(guest, thread) == _after(ConcreteEngine, 3_010)
    assert not cache.exists()


def test_what_takes_long_is_told(
    cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(compile_service, "_PATIENCE", 0.0)
    caplog.set_level(logging.INFO, "chronovisor.engine")
    service = CompileService()
    _ask(service, _single("addo r3,r4,r5"), _single("subfo r3,r4,r5"))
    assert [record.getMessage().split(",")[0] for record in caplog.records][:1] == ["compiling native code"]


def test_a_process_that_ends_while_it_compiles_ends_well_and_leaves_none_behind(cache: Path) -> None:
    program = """
import os, pathlib, time
from chronovisor.engine.native import code_cache
from chronovisor.engine.native.library import library, service
code_cache.BROUGHT = pathlib.Path(os.devnull)
library((True, True)).need_everyday()
while not service()._children:
    time.sleep(0.01)
print(service()._children[0]._process.pid)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    child = int(done.stdout)
    for _ in range(600):
        if not _runs(child):
            break
        threading.Event().wait(0.05)
    assert not _runs(child)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
