"""What the guests of `bench.devices` speak to: `python -m bench.network_server BYTES` prints its port.

An HTTP request is answered with so many bytes. Who sends ECHO gets a byte, and then each byte back that it
sends. A client that sends anything else sends as much as it likes.
It is a process of its own, so that it does not wait for the interpreter that runs a guest.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading
from contextlib import suppress

_CHUNK = bytes(1 << 16)


class _Conversation(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        asked = self.request.recv(len(_CHUNK))
        if asked.startswith(b"GET "):
            size = int(sys.argv[1])
            self.request.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
            for _ in range(size // len(_CHUNK)):
                self.request.sendall(_CHUNK)
        elif asked == b"ECHO":
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            byte = b"x"
            # The guest may leave without reading all.
            with suppress(ConnectionResetError):
                while byte:
                    self.request.sendall(byte)
                    byte = self.request.recv(1)
        else:
            while self.request.recv(len(_CHUNK)):
                pass


if __name__ == "__main__":
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Conversation) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        # Until who started it has ended.
        sys.stdin.read()
        server.shutdown()
