"""What a trace costs: a guest that does nothing but call, untraced and traced in turns.

This is the most that a trace can cost, because such a guest has nothing else to do. The allowance of events
is soon used up: from then on most runs are only counted.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.switch import LAST, RUNS, calling, least
from chronovisor.kvm.exits import HcallExit
from chronovisor.machine.tracing import VcpuTrace
from chronovisor.machine.vcpu_thread import run_told
from chronovisor.papr.hcalls import Hcall
from chronovisor.report.trace.file import TraceFile
from chronovisor.timebase.clock import HostClock, RealTime
from chronovisor.timebase.types import Offset

_CALLS = {
    "a hypercall that the hypervisor answers": Hcall.PROD,
    "a hypercall that reaches user space": Hcall.PUT_TERM_CHAR,
}


def _guest(number: int, recorder: VcpuTrace | None) -> Callable[[], Callable[[], None]]:
    def make() -> Callable[[], None]:
        vcpu = calling(number, Offset(0))
        vcpu.trace(recorder)

        def run() -> None:
            while True:
                exit_ = vcpu.run() if recorder is None else run_told(vcpu, recorder)
                assert isinstance(exit_, HcallExit)
                if exit_.nr == LAST:
                    return
                exit_.ret = 0
                if recorder is not None:
                    recorder.handled()

        return run

    return make


def show(console: Console) -> None:
    """Measure and print."""
    title = f"A trace's cost: µs of processor time a call, least of {RUNS} times"
    table = Table("call", "untraced", "traced", "more", title=title, title_justify="left")
    with tempfile.TemporaryDirectory() as folder:
        source = RealTime()
        trace = TraceFile(Path(folder) / "trace", source, lambda error: None)
        guest = trace.guest(HostClock(source), "bench")
        for place, (name, number) in enumerate(_CALLS.items()):
            off, on = least(_guest(number, None), _guest(number, guest.vcpu(place)))
            table.add_row(name, f"{off:.2f}", f"{on:.2f}", f"{on / off - 1:+.0%}")
        trace.close()
    console.print(table)
