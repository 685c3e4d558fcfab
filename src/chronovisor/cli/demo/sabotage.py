"""The fourth act: the second act's run with one part of the hypervisor made wrong, and who notices."""

from __future__ import annotations

from chronovisor.cli.demo import watchers
from chronovisor.cli.demo.findings import Act, Json
from chronovisor.cli.demo.switch import OFFSET, STARTED, start
from chronovisor.cli.demo.watched import GuestReport, Recorder, SilentGuestError, ask_for_report
from chronovisor.hypervisor.hypervisor import Hypervisor
from chronovisor.kvm.embedded.system import EmbeddedSystem
from chronovisor.kvm.embedded.vm import EmbeddedVm
from chronovisor.kvm.ids import VmType
from chronovisor.kvm.registers import write_register
from chronovisor.machine.host import Host
from chronovisor.processor.cpu_model import POWER8
from chronovisor.proof.sabotage import SABOTAGES, Sabotage
from chronovisor.timebase.clock import VirtualTime
from chronovisor.timebase.types import GRANULE

NOT_STARTED = STARTED
"""A vCPU that the guest does not start: user space can set the register on it while its sibling runs."""

SOUND = Sabotage("nothing made wrong", "")


class SabotagedSystem(EmbeddedSystem):
    """The embedded provider over a hypervisor with a wrong part."""

    def __init__(self, hypervisor: Hypervisor, sabotage: Sabotage) -> None:
        super().__init__(hypervisor)
        self._sabotage = sabotage
        sabotage.assemble(hypervisor)

    def create_vm(self, vm_type: int = VmType.HV) -> EmbeddedVm:
        """Make a machine of the sabotaged kind."""
        machine = self._sabotage.machine(self.hypervisor, stride=self.hypervisor.threads_per_core)
        return EmbeddedVm(machine, self.check_extension)


def play(origin: int) -> Act:
    """Run once as it should be and once with each sabotage; at this `origin` a wrap falls into an entry."""
    act = Act("Sabotage: the same run with one part made wrong")
    sound = _run(origin, SOUND)
    act.check(
        "the same run with nothing made wrong",
        "; ".join(sound) or "nobody found anything: not the guest, and not who watches the trace",
        not sound,
        beyond=True,
    )
    told: list[Json] = []
    for sabotage in SABOTAGES:
        by = _run(origin, sabotage)
        told.append({"name": sabotage.name, "caught": bool(by), "by": "; ".join(by)})
        act.check(sabotage.clause, f"{sabotage.name}: {'; '.join(by) or 'NOBODY NOTICED'}", bool(by))
    act.json["sabotage"] = told
    return act


def _run(origin: int, sabotage: Sabotage) -> list[str]:
    """Return what was noticed in the second act's run with this sabotage."""
    recorder = Recorder()
    hypervisor = Hypervisor(
        VirtualTime(), origin, cores=2, threads_per_core=2, cpu_model=POWER8, observer=recorder
    )
    guest = start(Host.over(SabotagedSystem(hypervisor, sabotage)), recorder)
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
