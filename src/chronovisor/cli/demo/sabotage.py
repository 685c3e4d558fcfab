"""The fourth act: the second act's run with one part of the hypervisor made wrong, and who notices."""

from __future__ import annotations

from chronovisor.cli.demo import watchers
from chronovisor.cli.demo.findings import Act, Json
from chronovisor.cli.demo.switch import OFFSET, STARTED, start
from chronovisor.cli.demo.watched import GuestReport, Recorder, SilentGuestError, ask_for_report
from chronovisor.kvm.registers import write_register
from chronovisor.proof.sabotage import SABOTAGES
from chronovisor.timebase.types import GRANULE

NOT_STARTED = STARTED
"""A vCPU that the guest does not start: user space can set the register on it while its sibling runs."""


def play(origin: int) -> Act:
    """Run once as it should be and once with each sabotage; at this `origin` a wrap falls into an entry."""
    act = Act("Sabotage: the same run with one part made wrong")
    sound = _run(origin, None)
    act.check(
        "the same run with nothing made wrong",
        "; ".join(sound) or "nobody found anything: not the guest, and not who watches the trace",
        not sound,
        beyond=True,
    )
    told: list[Json] = []
    for sabotage in SABOTAGES:
        by = _run(origin, sabotage.parts)
        told.append({"name": sabotage.name, "caught": bool(by), "by": "; ".join(by)})
        act.check(sabotage.clause, f"{sabotage.name}: {'; '.join(by) or 'NOBODY NOTICED'}", bool(by))
    act.json["sabotage"] = told
    return act


def _run(origin: int, parts: object | None) -> list[str]:
    """Return what was noticed in a run with these parts."""
    recorder = Recorder()
    guest = start(origin, recorder, parts=parts)
    sibling = guest.vcpus[NOT_STARTED]

    def change_offset() -> None:
        write_register(sibling, "TB_OFFSET", OFFSET.value + GRANULE)

    try:
        recorder.at_output("guest: readings", change_offset)
        ask_for_report(guest)
        # The virtual core whose offset was changed has left the guest by now.
        guest.set("TB_OFFSET", OFFSET.value, vcpu=NOT_STARTED)
        report: GuestReport | None = ask_for_report(guest)
    except SilentGuestError:
        report = None
    finally:
        guest.close()
    return watchers.found(recorder.moments, OFFSET, report)
