"""Sessions of a console, one behind the other."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from chronovisor.machine.console import Console
from chronovisor.machine.console_sessions import ConsoleSessions
from chronovisor.machine.errors import MachineError


def test_a_console_can_be_attached_as_soon_as_it_is_detached() -> None:
    """However long the session before takes to see that it is over."""
    sessions = ConsoleSessions(Console())
    threads = []
    for _ in range(5):
        hold = sessions.attach(types=True)
        client, connection = socket.socketpair()
        thread = threading.Thread(target=hold, args=(connection,))
        threads.append(thread)
        thread.start()
        # The session holds the connection as soon as it passes something on.
        client.sendall(b"x")
        while not sessions._console.typed:
            time.sleep(0.001)
        sessions._console.read(1)
        with pytest.raises(MachineError, match="attached to the console already"):
            sessions.attach(types=True)
        client.close()
    last = sessions.attach(types=True)
    sessions.close()
    for thread in threads:
        thread.join()
    assert last is not None
