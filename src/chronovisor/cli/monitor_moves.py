"""QMP's commands about a guest's moves, and the events that tell of them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from chronovisor.cli.entrance import Entrance
from chronovisor.cli.guest_commands import Subject, required
from chronovisor.cli.incoming_move import IncomingMove
from chronovisor.cli.monitor_objects import Objects
from chronovisor.cli.move_request import choose_token, write_request
from chronovisor.machine.errors import MachineError
from chronovisor.machine.qmp.session import Implementation
from chronovisor.migration.address import Place, UnixAddress, parse_address
from chronovisor.migration.credentials import Credentials
from chronovisor.migration.move_status import COMPLETED, DEVICE, SETUP
from chronovisor.migration.precopy import LEAST_BANDWIDTH, MoveLimits
from chronovisor.timebase.policy import CATCH_UP

_LONGEST_DOWNTIME: Final = 2_000_000
"""Milliseconds; QEMU's limit too."""
_TLS: Final = ("tls-creds", "tls-hostname", "tls-authz")
"""The parameters that protect a move; empty or null for none."""


class MoveCommands:
    """Does the commands for the guest that `subject` returns, if there is one, and tells events by `tell`.

    The credentials that moves use are among the `objects`.
    """

    def __init__(
        self,
        subject: Callable[[], Subject | None],
        objects: Objects,
        entrance: Entrance | None,
        incoming: IncomingMove | None,
        tell: Callable[[str, dict[str, Any]], None],
    ) -> None:
        self._subject = subject
        self._objects = objects
        self._entrance = entrance
        self._incoming = incoming
        if incoming is not None:
            incoming.changed = self._tell_status
        self._tell = tell
        self._events_of_moves = False
        self._stopped_for_move = False
        self._limits = MoveLimits()
        self._tls = dict.fromkeys(_TLS, "")
        self.implementations: dict[str, Implementation] = {
            "migrate": self._migrate,
            "migrate-incoming": self._migrate_incoming,
            "migrate_cancel": self._cancel,
            "query-migrate": self._query_migrate,
            "migrate-set-parameters": self._set_parameters,
            "query-migrate-parameters": self._query_parameters,
            "migrate-set-capabilities": self._set_capabilities,
            "query-migrate-capabilities": self._query_capabilities,
        }

    @property
    def _its(self) -> Subject:
        return required(self._subject())

    def _migrate_incoming(self, given: dict[str, Any]) -> None:
        if self._entrance is None:
            raise MachineError("this process waits for no guest: `chronovisor receive defer` does")
        self._entrance.open_for_client(*self._place(given["uri"], "server"))
        self._tell_status(SETUP)

    def _migrate(self, given: dict[str, Any]) -> None:
        if self._its.moves.under_way:
            raise self._moves_already()
        if self._its.departure.state not in ("running", "paused"):
            raise MachineError(f"{self._its.guest.name} cannot move now: it is {self._its.departure.state}")
        # What is wrong with an address is told at once, and not as a move that failed.
        place, credentials = self._place(given["uri"], "client")
        place.resolve()
        limits = self._limits
        request = {"cancel": False, "force_resume": False, "resolve": False} | write_request(
            str(place),
            False,
            credentials,
            None,
            limits.downtime,
            limits.bandwidth,
            limits.clock_error,
            CATCH_UP,
            choose_token("", ""),
            None,
            None,
        )
        number = self._its.moves.begin()
        if number is None:
            # Since it was looked at.
            raise self._moves_already()
        follow = threading.Thread(
            target=self._follow, args=(request, number), name="monitor's move", daemon=True
        )
        follow.start()

    def _place(self, uri: str, endpoint: str) -> tuple[Place, Credentials | None]:
        """Return the place that a URI says, and the credentials with which this side is its `endpoint`.

        As under QEMU `tcp:` is under TLS if `tls-creds` says with which credentials.
        """
        place, name = parse_address(uri, listen=endpoint == "server"), self._tls["tls-creds"]
        if not name:
            if place.tls and endpoint == "client":
                raise MachineError(f"{place}: say with migrate-set-parameters which tls-creds to use")
            return place, None
        if isinstance(place, UnixAddress):
            raise MachineError(f'{place}: TLS is for tcp:HOST:PORT; set tls-creds to "" for a unix socket')
        return replace(place, tls=True), self._objects.credentials(name, endpoint, self._tls["tls-hostname"])

    def _moves_already(self) -> MachineError:
        return MachineError("There's a migration process in progress: wait for its end, or cancel it")

    def _follow(self, request: dict[str, Any], number: int) -> None:
        try:
            for _ in self._its.handlers["migrate"](request | {"begun": number}):
                pass
        except Exception as error:
            # If the move itself failed, that is known already, and there may be another one by now.
            self._its.moves.fail(number, str(error))

    def _cancel(self, given: dict[str, Any]) -> None:
        if self._its.moves.under_way:
            self._its.handlers["migrate"]({"cancel": True})

    def _query_migrate(self, given: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = {}
        subject = self._subject()
        if subject is None or subject.moves.status is None:
            if self._incoming is not None and self._incoming.status is not None:
                answer["status"] = self._incoming.status
            place = None if self._entrance is None else self._entrance.address
            if place is not None and answer.get("status") != COMPLETED:
                answer["socket-address"] = [_socket_address(place)]
            return answer
        moves, progress = subject.moves, subject.departure.progress
        answer["status"] = moves.status
        if moves.error:
            answer["error-desc"] = moves.error
        if moves.status != "failed":
            answer["total-time"] = round(moves.duration * 1000)
        if moves.report is not None:
            record, transfer = moves.report.record, moves.report.transfer
            answer["downtime"] = round(record.downtime_ns / 1e6)
            answer["ram"] = self._ram(
                transfer.sent_bytes, 0, transfer.sent_bytes * 1e9 / transfer.duration_ns, transfer.rounds
            )
            answer["x-chronovisor"] = moves.report.as_json()
        elif progress is not None:
            answer["ram"] = self._ram(
                progress.sent_bytes, progress.remaining_bytes, progress.rate, progress.round
            )
        return answer

    def _ram(self, sent: int, remaining: int, rate: float, rounds: int) -> dict[str, Any]:
        return {
            "transferred": sent,
            "remaining": remaining,
            "total": self._its.guest.memory.size,
            "mbps": rate * 8 / 1e6,
            "dirty-sync-count": rounds,
            "page-size": self._its.guest.system.host.page_size,
        }

    def _set_parameters(self, given: dict[str, Any]) -> None:
        downtime = given.get("downtime-limit", self._limits.downtime * 1000)
        bandwidth = given.get("max-bandwidth", self._limits.bandwidth or 0)
        if not 0 <= downtime <= _LONGEST_DOWNTIME:
            raise MachineError(
                f"Parameter 'downtime-limit' expects an integer in the range of 0 to {_LONGEST_DOWNTIME} ms"
            )
        if bandwidth < 0 or 0 < bandwidth < LEAST_BANDWIDTH:
            raise MachineError(
                f"Parameter 'max-bandwidth' expects 0 or at least {LEAST_BANDWIDTH} bytes a second"
            )
        tls = self._tls | {name: given[name] or "" for name in _TLS if name in given}
        if tls["tls-authz"]:
            raise MachineError(
                "tls-authz: there are no authorization objects; `receive --allow NAME` says who may come"
            )
        self._limits, self._tls = MoveLimits(downtime / 1000, bandwidth or None), tls

    def _query_parameters(self, given: dict[str, Any]) -> dict[str, Any]:
        return {
            "downtime-limit": round(self._limits.downtime * 1000),
            "max-bandwidth": self._limits.bandwidth or 0,
            **self._tls,
        }

    def _set_capabilities(self, given: dict[str, Any]) -> None:
        for wanted in given["capabilities"]:
            self._events_of_moves = wanted["state"]

    def _query_capabilities(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"capability": "events", "state": self._events_of_moves}]

    def tell_move(self, status: str) -> None:
        """Tell that a move's status has changed."""
        if status == DEVICE and self._its.departure.paused is None:
            self._stopped_for_move = True
            self._tell("STOP", {})
        self._tell_status(status)
        if self._stopped_for_move and self._its.guest.running and status not in (DEVICE, COMPLETED):
            self._stopped_for_move = False
            self._tell("RESUME", {})

    def _tell_status(self, status: str) -> None:
        if self._events_of_moves:
            self._tell("MIGRATION", {"status": status})


def _socket_address(place: Place) -> dict[str, Any]:
    if isinstance(place, UnixAddress):
        return {"type": "unix", "path": place.path}
    return {"type": "inet", "host": place.host, "port": str(place.port)}
