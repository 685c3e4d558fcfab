"""Which orders of a virtual core's threads need not be explored, because they only swap steps that commute.

While a stay ends (`Stay.leaving`), its vCPUs come out, and nobody joins them. Two rules are used then. Let s
be a state in which they apply, and w any course from s to an end.

*Only those inside.* A vCPU that is no part of the stay can only come and wait for a core. This step changes
the number of those who wait, which no vCPU inside looks at before the last of them has passed the barrier
(`stay.kept`) and releases the core. What those inside do until then changes nothing that a newcomer looks at.
So the first step in w of a vCPU inside can be moved to the front. If none of the steps inside is that of the
last one at the barrier, the steps of the vCPUs inside are enough at s.

*One of several alike.* Let two vCPUs inside, neither of them the primary, be at the same place in the same
state: to swap their names changes nothing. Both come out in w. Call the first of them that takes a step A,
and the other one B. A is not the last that leaves the guest, and not the last that passes the barrier,
because B is still behind. So A's step at most adds 1 to `stay.out` or `stay.kept`. Nobody finds these numbers
complete before B has taken its step as well, with A's step early or late. So A's step can be moved to the
front, and is enough at s.

What is required of every state is required of each vCPU in the guest. The rules let A leave the guest
earlier, but not B: a course that breaks a requirement while A is in the guest breaks it for B too, once A has
left. No course is endless, because each stay ends the run of at least one vCPU.

These are arguments about the right code. docs/proofs.md says how they are checked, and that wrong code is
found as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from chronovisor.hypervisor.exits import Exit
from chronovisor.hypervisor.stay import Stay
from chronovisor.hypervisor.virtual_cpu import VirtualCpu
from chronovisor.hypervisor.world_switch import WorldSwitch
from chronovisor.proof.interleaving import Actor


class Runner(Actor):
    """A thread of user space that runs a vCPU once, and says with what the run ended."""

    def __init__(self, vcpu: VirtualCpu, ended: Callable[[Exit], None]) -> None:
        super().__init__(f"vCPU {vcpu.number}", lambda: ended(vcpu.run()))
        self.vcpu = vcpu


def is_at(actor: Actor, *functions: Callable[..., Any]) -> bool:
    """Return whether an actor is in one of some functions, or in what they call."""
    names = {function.__qualname__ for function in functions}
    return any(name in names for name, _ in actor.place)


def narrowed(stay: Stay, groups: list[list[Actor]], in_guest: Callable[..., Any]) -> list[list[Actor]]:
    """Return the groups of interchangeable actors whose steps are enough while `stay` ends.

    A vCPU that is in its guest is in the function `in_guest`.
    """
    # Those that have passed the barrier are newcomers again.
    comes_out = in_guest, WorldSwitch.leave, WorldSwitch._enter_as_primary, WorldSwitch._enter_as_secondary
    inside = [group for group in groups if is_at(group[0], *comes_out)]
    for group in inside:
        vcpus = [actor.vcpu for actor in group if isinstance(actor, Runner)]
        if len(vcpus) > 1 and stay.primary not in vcpus:
            return [group]
    return inside if inside and stay.kept + 1 < len(stay.inside) else groups
