"""Prints results that are the same on every machine: arithmetic, decimal numbers, hashes, threads, text."""

import decimal
import hashlib
import json
import math
import struct
import threading
import time
import zlib

total: list[float] = []


def work(begin: int) -> None:
    total.append(math.fsum(math.sqrt(n) / (n + 1) for n in range(begin, begin + 5000)))


threads = [threading.Thread(target=work, args=(begin,)) for begin in range(0, 20000, 5000)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
times = [time.monotonic_ns() for _ in range(2000)]
time.sleep(0.05)
decimal.getcontext().prec = 60
noise = bytes(range(256)) * 64
print(
    json.dumps(
        {
            "sum": math.fsum(total).hex(),
            "decimal": str(decimal.Decimal(2).sqrt() / 7),
            "single": struct.unpack("<f", struct.pack("<f", 1 / 3))[0],
            "power": str(3**500 // 7**100),
            "sha": [hashlib.new(name, noise).hexdigest() for name in ("sha1", "sha256", "sha512", "md5")],
            "zlib": zlib.crc32(zlib.decompress(zlib.compress(noise))),
            "forward": times == sorted(times) and time.monotonic_ns() - times[-1] >= 50_000_000,
        }
    )
)
