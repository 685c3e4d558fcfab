"""What the guests of `bench.devices` speak to: `python -m bench.network_server BYTES TINY` prints its port.

An HTTP request is answered with so many bytes, one for `/tiny` with so many in pieces of 100 bytes. A client
that sends anything else sends as much as it likes.
It is a process of its own, so that it does not wait for the interpreter that runs a guest.
"""

from __future__ import annotations

import socket
import socketserver
import sys
import threading

_CHUNK = bytes(1 << 16)
_PIECE = bytes(100)


class _Conversation(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        asked = self.request.recv(len(_CHUNK))
        if asked.startswith(b"GET /tiny "):
            # Each piece becomes a segment of its own.
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._answer(int(sys.argv[2]), _PIECE)
        elif asked.startswith(b"GET "):
            self._answer(int(sys.argv[1]), _CHUNK)
        else:
            while self.request.recv(len(_CHUNK)):
                pass

    def _answer(self, size: int, piece: bytes) -> None:
        self.request.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for at in range(0, size, len(piece)):
            self.request.sendall(piece[: size - at])


if __name__ == "__main__":
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Conversation) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_address[1], flush=True)
        # Until who started it has ended.
        sys.stdin.read()
        server.shutdown()
