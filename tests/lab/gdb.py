"""The little of the gdb remote serial protocol that the lab needs (QEMU's gdbstub)."""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from pathlib import Path

from tests.lab.errors import LabError
from tests.lab.qmp import connect


class Stub:
    """A connection to QEMU's gdb stub.  Attaching stops the machine.

    Args:
        path: The Unix socket QEMU listens on.
        timeout: Seconds to wait for any one answer.
    """

    def __init__(self, path: Path, timeout: float = 60) -> None:
        self._socket: socket.socket = connect(path, timeout)
        self._buffer = b""
        self._timeout = timeout
        # The connection itself stops the machine, and the stub may announce that on its own: ask, then drain.
        self.request("?")
        self._drain()

    def request(self, payload: str) -> str:
        """Send one packet and return the answer to it."""
        self.send(payload)
        return self.packet(self._timeout)

    def send(self, payload: str) -> None:
        """Send one packet and wait for nothing."""
        self._write(encode(payload))

    def packet(self, timeout: float) -> str:
        """Return the next packet from the stub.

        Raises:
            LabError: None came within ``timeout`` seconds, or QEMU is gone.
        """
        deadline = time.monotonic() + timeout
        while True:
            payload, self._buffer = decode(self._buffer)
            if payload is not None:
                self._write(b"+")
                return payload
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                piece = self._socket.recv(65536)
            except OSError as error:
                raise LabError(f"no answer from the gdb stub: {error}") from error
            if not piece:
                raise LabError("QEMU closed its gdb stub")
            self._buffer += piece

    def breakpoint(self, address: int) -> None:
        """Set a hardware breakpoint, which needs no page table to be there."""
        self._expect_ok(f"Z1,{address:x},1")

    def clear(self, address: int) -> None:
        """Remove a breakpoint."""
        self._expect_ok(f"z1,{address:x},1")

    def read(self, address: int, size: int) -> bytes:
        """Read memory at a virtual address of the stopped CPU."""
        answer = self.request(f"m{address:x},{size:x}")
        if answer.startswith("E"):
            raise LabError(f"cannot read guest memory at {address:#x}")
        return bytes.fromhex(answer)

    def write(self, address: int, data: bytes) -> None:
        """Write memory at a virtual address, read-only text included."""
        self._expect_ok(f"M{address:x},{len(data):x}:{data.hex()}")

    def read_physical(self, address: int, size: int) -> bytes:
        """Read physical memory."""
        self._expect_ok("Qqemu.PhyMemMode:1")
        try:
            return self.read(address, size)
        finally:
            self._expect_ok("Qqemu.PhyMemMode:0")

    def write_physical(self, address: int, data: bytes) -> None:
        """Write physical memory (QEMU's own Qqemu.PhyMemMode)."""
        self._expect_ok("Qqemu.PhyMemMode:1")
        try:
            self.write(address, data)
        finally:
            self._expect_ok("Qqemu.PhyMemMode:0")

    def go(self) -> None:
        """Let the machine run; the stop is fetched by :meth:`packet`."""
        self.send("c")

    def run_only(self, cpus: Sequence[int], seconds: float) -> None:
        """Let some CPUs of the stopped machine run for a moment, then stop them."""
        if not len(cpus):
            return
        self.send("vCont" + "".join(f";c:{cpu + 1:x}" for cpu in cpus))
        time.sleep(seconds)
        self._write(b"\x03")
        self.packet(self._timeout)

    def detach(self) -> None:
        """Remove what is set and let the machine run."""
        self.request("D")
        self._socket.close()

    def close(self) -> None:
        """Drop the connection (the machine stays as it is)."""
        self._socket.close()

    def _write(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise LabError(f"QEMU's gdb stub is gone: {error}") from error

    def _expect_ok(self, payload: str) -> None:
        answer = self.request(payload)
        if answer != "OK":
            raise LabError(f"the gdb stub answers {answer!r} to {payload[:40]!r}")

    def _drain(self) -> None:
        while True:
            try:
                self.packet(0.2)
            except LabError:
                return


def encode(payload: str) -> bytes:
    """Frame a packet: ``$payload#checksum``."""
    return f"${payload}#{sum(payload.encode()) & 0xFF:02x}".encode()


def decode(buffer: bytes) -> tuple[str | None, bytes]:
    """Take the first whole packet from what was received.

    Returns:
        The payload (None if none is complete yet) and the bytes that remain.
    """
    start = buffer.find(b"$")
    if start < 0:
        return None, b""  # acknowledgements only
    end = buffer.find(b"#", start)
    if end < 0 or len(buffer) < end + 3:
        return None, buffer[start:]
    return buffer[start + 1 : end].decode("latin-1"), buffer[end + 3 :]
