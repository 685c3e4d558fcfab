"""With the virtual clock a seed gives the same trace, tick for tick, in this process and in another."""

from __future__ import annotations

import os
import subprocess
import sys
from difflib import unified_diff
from itertools import islice
from pathlib import Path

import pytest
from scenario import trace_of

import chronovisor as cv
from chronovisor.timebase.trace import Event

SCENARIO = Path(__file__).with_name("scenario.py")


def assert_alike(one: str, other: str, seed: int) -> None:
    if one != other:
        difference = "\n".join(
            islice(unified_diff(one.splitlines(), other.splitlines(), lineterm="", n=1), 20)
        )
        pytest.fail(f"two courses of seed {seed} (see `python {SCENARIO.name} {seed}`) part:\n{difference}")


@pytest.mark.parametrize("seed", range(4))
def test_a_seeds_scenario_takes_the_same_course_tick_for_tick(seed: int) -> None:
    here = trace_of(seed)
    assert_alike(here, trace_of(seed), seed)
    environment = {**os.environ, "PYTHONHASHSEED": str(seed + 1)}
    # Without a buffer Python loses the rest of what it writes if a signal comes in the midst.
    environment.pop("PYTHONUNBUFFERED", None)
    elsewhere = subprocess.run(
        [sys.executable, str(SCENARIO), str(seed)],
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
        env=environment,
    )
    assert_alike(here, elsewhere.stdout.removesuffix("\n"), seed)


def test_another_seed_takes_another_course() -> None:
    """Turns are drawn too: not only what is done differs, but the order in which vCPUs that run at once go
    on.
    """
    assert trace_of(0) != trace_of(1)


def whole_guests(seconds: float) -> tuple[list[str], list[str]]:
    """Guests of a whole machine each, on two hosts, all running at once: what happened to time, and what they
    say.
    """
    time = cv.VirtualTime()
    trace: list[str] = []

    def watch(host: int) -> object:
        def see(event: Event) -> None:
            trace.append(f"{time.ticks()} host {host} {event}")

        return see

    hosts = [
        cv.Host(
            clock=time, engine="concrete", tb_origin=host << 50, cpu="power8", threads=2, observer=watch(host)
        )
        for host in range(2)
    ]
    guests = [
        hosts[number % 2].boot("demo-le.elf", "2M", smp=2, threads=2, tb_offset=number << 40)
        for number in range(3)
    ]
    for guest in guests:
        assert guest.run_until("watching")
    end = time.ticks() + round(seconds * cv.FREQUENCY)
    scheduler = hosts[0].system.hypervisor.scheduler
    # Nobody goes on before all may.
    with scheduler.monitor:
        for guest in guests:
            guest.console.type(b"r")
            time.call_at(end, guest._threads.ask_to_stop)
            guest.resume()
    for guest in guests:
        guest._threads.wait_until_idle()
    said = [guest.console_text for guest in guests]
    for host in hosts:
        host.close()
    return trace, said


def test_whole_guests_on_two_hosts_take_the_same_course() -> None:
    trace, said = whole_guests(0.1)
    assert all(" back=0 " in text and " lost=0 " in text for text in said)
    assert len(trace) > 1000
    assert (trace, said) == whole_guests(0.1)
