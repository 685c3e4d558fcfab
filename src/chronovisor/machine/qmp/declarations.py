"""The commands, events and types of our monitor.

Names and types are QEMU's; a member named `x-chronovisor` is ours.
"""

from __future__ import annotations

from typing import Final

from chronovisor.machine.qmp.schema import Alternate, Command, Enumeration, Event, Member, Schema, Structure

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
    Command("query-target", "The processor's architecture.", returns="TargetInfo"),
    Command("query-memory-size-summary", "The guest's memory.", returns="MemoryInfo"),
    Command("stop", "Stops the guest, as `chronovisor pause`. Nothing if it is stopped."),
    Command("cont", "Lets the guest go on, as `chronovisor resume`: the stop does not count for its time. "
        "Nothing if it runs."),
    Command("system_reset", "Starts the guest again from its beginning; with `--no-reboot` it ends instead."),
    Command("system_powerdown", "Tells the guest to shut down (EPOW); a guest that does not listen goes on."),
    Command("quit", "Ends the guest as `chronovisor stop`, and its process with status 0."),
    Command("object-add", "Makes an object: TLS credentials, for moves of this monitor. Both sides of a move "
        "show certificates.",
        (Member("qom-type", "ObjectType", "`tls-creds-x509`"),
         Member("id", "str", "by which it is called"),
         Member("dir", "str", "the directory of `ca-cert.pem`, and of `client-cert.pem` and `client-key.pem` "
            "or `server-cert.pem` and `server-key.pem`", optional=True),
         Member("endpoint", "QCryptoTLSCredsEndpoint", "`client` (the default) for the side that a guest "
            "leaves, `server` for the one to which it comes", optional=True),
         Member("verify-peer", "bool", "true alone", optional=True))),
    Command("object-del", "Forgets an object. A move that has begun goes on.",
        (Member("id", "str", "which one"),)),
    Command("migrate", "Begins a move to a `chronovisor receive` and returns; `query-migrate` tells of it.",
        (Member("uri", "str", "`tcp:HOST:PORT` (with `tls-creds` under TLS, else of this machine's "
            "loopback), or `unix:PATH`"),
         Member("detach", "bool", "taken and ignored, as by QEMU", optional=True))),
    Command("migrate-incoming", "Begins to wait for a guest, in a `chronovisor receive defer`.",
        (Member("uri", "str", "`tcp:HOST:PORT` (with `tls-creds` under TLS, else of this machine's loopback; "
            "port 0: any that is free, and `query-migrate` tells which), `unix:PATH`, or `tls:HOST:PORT` if "
            "`receive` itself has certificates"),)),
    Command("migrate_cancel", "Cancels the move, if one is under way; an error if it is too late for that."),
    Command("query-migrate", "What is known of the latest move. Without one, an object without members.",
        returns="MigrationInfo"),
    Command("migrate-set-parameters", "Sets what moves by this monitor may cost, and what protects them.",
        (Member("downtime-limit", "int", "milliseconds, 0 to 2000000", optional=True),
         Member("max-bandwidth", "int", "bytes a second; 0 for all there is", optional=True),
         Member("tls-creds", "StrOrNull", "the `id` of the credentials with which `tcp:` is under TLS; empty "
            "or null for none", optional=True),
         Member("tls-hostname", "StrOrNull", "whom the destination's certificate has to be for, in place of "
            "the host in the URI", optional=True),
         Member("tls-authz", "StrOrNull", "empty or null alone: `receive --allow NAME` says whose "
            "certificates are taken", optional=True))),
    Command("query-migrate-parameters", "What `migrate-set-parameters` set.", returns="MigrateParameters"),
    Command("migrate-set-capabilities", "Turns capabilities of moves on or off for all clients.",
        (Member("capabilities", "[MigrationCapabilityStatus]", "which of them, and whether"),)),
    Command("query-migrate-capabilities", "The capabilities of moves.",
        returns="[MigrationCapabilityStatus]"),
    Command("dump-guest-memory", "Writes an ELF core file, as `chronovisor dump`.",
        (Member("paging", "bool", "false alone"),
         Member("protocol", "str", "`file:PATH`"),
         Member("detach", "bool", "taken and ignored", optional=True),
         Member("format", "DumpGuestMemoryFormat", "the default, `elf`", optional=True))),
    Command("query-dump-guest-memory-capability", "The formats of `dump-guest-memory`.",
        returns="DumpGuestMemoryCapability"),
    Command("human-monitor-command", "A line of QEMU's human monitor: `help` tells which there are.",
        (Member("command-line", "str", "the command"),
         Member("cpu-index", "int", "the vCPU, 0 if there is no other word", optional=True)),
        returns="str"),
)  # fmt: skip

EVENTS: Final = (
    Event("STOP", "The guest was stopped: by its owner, or for a move."),
    Event("RESUME", "The guest goes on: its owner said so, or its move failed."),
    Event("POWERDOWN", "The guest was told to shut down."),
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
    Enumeration("SysEmuTarget", ("ppc64",)),
    Structure("TargetInfo", (Member("arch", "SysEmuTarget", "always `ppc64`"),)),
    Structure("MemoryInfo",
        (Member("base-memory", "int", "bytes"), Member("plugged-memory", "int", "always 0"))),
    Structure("NameInfo", (Member("name", "str", "as `chronovisor ps` lists it", optional=True),)),
    Enumeration("RunState",
        ("inmigrate", "prelaunch", "running", "paused", "finish-migrate", "postmigrate", "shutdown")),
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
         Member("socket-address", "[SocketAddress]", "where a guest is waited for", optional=True),
         Member("x-chronovisor", "any",
            "the record of a completed move, as `chronovisor migrate --json` prints it", optional=True))),
    Enumeration("ObjectType", ("tls-creds-x509",)),
    Enumeration("QCryptoTLSCredsEndpoint", ("client", "server")),
    Alternate("StrOrNull", ("str", "null")),
    Enumeration("SocketAddressType", ("inet", "unix")),
    Structure("SocketAddress",
        (Member("type", "SocketAddressType", "of which kind"),
         Member("host", "str", "of `inet`", optional=True),
         Member("port", "str", "of `inet`", optional=True),
         Member("path", "str", "of `unix`", optional=True))),
    Structure("MigrateParameters",
        (Member("downtime-limit", "int", "milliseconds"),
         Member("max-bandwidth", "int", "bytes a second; 0 for all there is"),
         Member("tls-creds", "str", "the credentials' `id`; empty for none"),
         Member("tls-hostname", "str", "whom the destination's certificate has to be for; empty for the host "
            "in the URI"),
         Member("tls-authz", "str", "always empty"))),
    Enumeration("MigrationCapability", ("events",)),
    Structure("MigrationCapabilityStatus",
        (Member("capability", "MigrationCapability", "which"), Member("state", "bool", "whether it is on"))),
    Enumeration("DumpGuestMemoryFormat", ("elf",)),
    Structure("DumpGuestMemoryCapability", (Member("formats", "[DumpGuestMemoryFormat]", "all of them"),)),
    Enumeration("ShutdownCause",
        ("host-error", "host-qmp-quit", "host-qmp-system-reset", "host-signal", "guest-shutdown",
         "guest-reset", "guest-panic")),
)  # fmt: skip

SCHEMA: Final = Schema(COMMANDS, EVENTS, TYPES)
