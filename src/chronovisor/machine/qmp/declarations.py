"""The commands, events and types of our monitor.

Names and types are QEMU's; a member named `x-chronovisor` is ours.
"""

from __future__ import annotations

from typing import Final

from chronovisor.machine.qmp.schema import Command, Enumeration, Event, Member, Schema, Structure

COMMANDS: Final = (
    Command("qmp_capabilities", "Ends the negotiation. It comes first; there is no capability to enable.",
        (Member("enable", "[QMPCapability]", "capabilities to enable", optional=True),)),
    Command("query-version", "The version of QEMU whose words these are, and Chronovisor's as the package.",
        returns="VersionInfo"),
    Command("query-commands", "The names of all commands.", returns="[CommandInfo]"),
    Command("query-qmp-schema", "The commands, events and types, as QEMU's `SchemaInfo` describes them.",
        returns="[any]"),
    Command("query-name", "The guest's name.", returns="NameInfo"),
    Command("query-status", "Whether the guest runs.", returns="StatusInfo"),
    Command("query-cpus-fast", "The vCPUs and the threads that run them. The guest is not stopped for it.",
        returns="[CpuInfoFast]"),
    Command("stop", "Stops the guest, as `chronovisor pause`. Nothing if it is stopped."),
    Command("cont", "Lets the guest go on, as `chronovisor resume`: the stop does not count for its time. "
        "Nothing if it runs."),
    Command("system_reset", "Starts the guest again from its beginning; with `--no-reboot` it ends instead."),
    Command("system_powerdown", "Answered with an error: the machine has no power button."),
    Command("quit", "Ends the guest as `chronovisor stop`, and its process with status 0."),
    Command("migrate", "Begins a move to a `chronovisor receive` and returns; `query-migrate` tells of it.",
        (Member("uri", "str", "`tcp:HOST:PORT` of this machine's loopback, or `unix:PATH`"),
         Member("detach", "bool", "taken and ignored, as by QEMU", optional=True))),
    Command("migrate_cancel", "Cancels the move, if one is under way; an error if it is too late for that."),
    Command("query-migrate", "What is known of the latest move. Without one, an object without members.",
        returns="MigrationInfo"),
    Command("migrate-set-parameters", "Sets what the moves that this monitor begins may cost.",
        (Member("downtime-limit", "int", "milliseconds, 0 to 2000000", optional=True),
         Member("max-bandwidth", "int", "bytes a second; 0 for all there is", optional=True))),
    Command("query-migrate-parameters", "What `migrate-set-parameters` set.", returns="MigrateParameters"),
    Command("migrate-set-capabilities", "Turns capabilities of moves on or off for all clients.",
        (Member("capabilities", "[MigrationCapabilityStatus]", "which of them, and whether"),)),
    Command("query-migrate-capabilities", "The capabilities of moves.",
        returns="[MigrationCapabilityStatus]"),
    Command("human-monitor-command", "`info status` or `info registers [-a]`, in text.",
        (Member("command-line", "str", "the command"),
         Member("cpu-index", "int", "the vCPU, 0 if there is no other word", optional=True)),
        returns="str"),
)  # fmt: skip

EVENTS: Final = (
    Event("STOP", "The guest was stopped: by its owner, or for a move."),
    Event("RESUME", "The guest goes on: its owner said so, or its move failed."),
    Event("RESET", "The guest starts again.",
        (Member("guest", "bool", "whether the guest asked for it"),
         Member("reason", "ShutdownCause", "why"))),
    Event("SHUTDOWN", "The guest has ended here; its process ends soon.",
        (Member("guest", "bool", "whether the guest caused it"),
         Member("reason", "ShutdownCause", "why"))),
    Event("MIGRATION", "A move's status changed; sent if the capability `events` is on.",
        (Member("status", "MigrationStatus", "what it is now"),)),
)  # fmt: skip

TYPES: Final = (
    Enumeration("QMPCapability", ()),
    Structure("VersionTriple", tuple(
        Member(name, "int", "its number") for name in ("major", "minor", "micro"))),
    Structure("VersionInfo",
        (Member("qemu", "VersionTriple", "QEMU's version"), Member("package", "str", "Chronovisor's"))),
    Structure("CommandInfo", (Member("name", "str", "the command's"),)),
    Structure("NameInfo", (Member("name", "str", "as `chronovisor ps` lists it", optional=True),)),
    Enumeration("RunState", ("prelaunch", "running", "paused", "finish-migrate", "postmigrate", "shutdown")),
    Structure("StatusInfo",
        (Member("running", "bool", "whether vCPUs may execute"),
         Member("singlestep", "bool", "never"),
         Member("status", "RunState", "in a word"),
         Member("x-chronovisor", "str", "the state as `chronovisor ps` names it"))),
    Structure("CpuInstanceProperties", (Member("core-id", "int", "the virtual core's first vCPU"),)),
    Structure("CpuInfoFast",
        (Member("cpu-index", "int", "the vCPU's number"),
         Member("thread-id", "int", "of the host's thread; 0 before the vCPU first ran"),
         Member("target", "str", "always `ppc64`"),
         Member("props", "CpuInstanceProperties", "where it is"))),
    Enumeration("MigrationStatus",
        ("setup", "active", "device", "cancelled", "completed", "failed", "x-undecided")),
    Structure("MigrationStats",
        (Member("transferred", "int", "bytes of memory sent"),
         Member("remaining", "int", "bytes that are known to be still to send"),
         Member("total", "int", "bytes of the guest's memory"),
         Member("mbps", "number", "megabits a second, in this round"),
         Member("dirty-sync-count", "int", "rounds begun"),
         Member("page-size", "int", "bytes"))),
    Structure("MigrationInfo",
        (Member("status", "MigrationStatus", "how far it is", optional=True),
         Member("ram", "MigrationStats", "memory, while it is under way and when it is over", optional=True),
         Member("total-time", "int", "milliseconds since it began", optional=True),
         Member("downtime", "int", "milliseconds, of a completed move", optional=True),
         Member("error-desc", "str", "why it failed", optional=True),
         Member("x-chronovisor", "any",
            "the record of a completed move, as `chronovisor migrate --json` prints it", optional=True))),
    Structure("MigrateParameters",
        (Member("downtime-limit", "int", "milliseconds"),
         Member("max-bandwidth", "int", "bytes a second; 0 for all there is"))),
    Enumeration("MigrationCapability", ("events",)),
    Structure("MigrationCapabilityStatus",
        (Member("capability", "MigrationCapability", "which"), Member("state", "bool", "whether it is on"))),
    Enumeration("ShutdownCause",
        ("host-error", "host-qmp-quit", "host-qmp-system-reset", "host-signal", "guest-shutdown",
         "guest-reset", "guest-panic")),
)  # fmt: skip

SCHEMA: Final = Schema(COMMANDS, EVENTS, TYPES)
