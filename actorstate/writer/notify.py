"""Readiness and watchdog messages to systemd (sd_notify(3)); silent where nobody listens."""

import os
import socket


def notify(state: str) -> None:
    """Sends `state` (such as READY=1) to $NOTIFY_SOCKET, if that is set."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect(name)
        channel.send(state.encode())


def watchdog_interval_s() -> float | None:
    """Half of what systemd allows between two signs of life; None without a watchdog for this process."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(microseconds) / 2e6
