"""QEMU's monitor, over QMP (docs/interop/qmp-spec.txt in QEMU's source)."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path
from typing import Any

from tests.lab.errors import LabError


class Monitor:
    """A QMP connection: commands, and the events that came in between.

    Args:
        path: The Unix socket QEMU listens on.
        timeout: Seconds to wait for the socket to appear and for any one answer.
    """

    def __init__(self, path: Path, timeout: float = 60) -> None:
        self.events: list[dict[str, Any]] = []
        self._socket = connect(path, timeout)
        self._buffer = b""
        self._timeout = timeout
        self._message()  # the greeting
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: object) -> Any:
        """Run one command and return its result.

        Raises:
            LabError: QEMU refused it, or is gone.
        """
        request: dict[str, object] = {"execute": name}
        if arguments:
            request["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
        try:
            self._socket.sendall(json.dumps(request).encode())
        except OSError as error:
            raise LabError(f"QEMU is gone: {error}") from error
        while True:
            message = self._message()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise LabError(f"{name}: {message['error'].get('desc')}")
            self.events.append(message)

    def human(self, line: str, cpu: int = 0) -> str:
        """Run one line of the human monitor, as seen from one CPU."""
        return str(self.command("human-monitor-command", command_line=line, cpu_index=cpu))

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + self._timeout
        while b"\n" not in self._buffer:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                piece = self._socket.recv(65536)
            except OSError as error:
                raise LabError(f"no answer from QEMU's monitor: {error}") from error
            if not piece:
                raise LabError("QEMU closed its monitor")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message


def connect(path: Path, timeout: float) -> socket.socket:
    """Connect to a Unix socket that is about to appear.

    Raises:
        LabError: It did not appear in time.
    """
    deadline = time.monotonic() + timeout
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(str(path))
        except OSError as error:
            connection.close()
            if time.monotonic() > deadline:
                raise LabError(f"{path.name}: {error}") from error
            time.sleep(0.05)
        else:
            return connection
