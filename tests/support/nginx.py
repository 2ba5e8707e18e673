"""nginx as deploy/nginx.conf configures it, before a web server of a test."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DEPLOYED = Path(__file__).resolve().parents[2] / "deploy/nginx.conf"
WITHIN_S = 20.0


def configured(folder: Path, upstream: str, listen: str) -> Path:
    """deploy/nginx.conf with another upstream, port and cache, in a whole configuration of its own."""
    text = DEPLOYED.read_text().replace("unix:/run/actorstate-web/web.sock", upstream)
    ours = text.replace("/var/cache/nginx/actorstate", f"{folder}/cache").replace("listen 8080", f"listen {listen}")
    (folder / "ours.conf").write_text(ours)
    whole = folder / "nginx.conf"
    whole.write_text(
        f"daemon off; user root; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;"
        f"events {{ worker_connections 1024; }} http {{ access_log off; include {folder}/ours.conf; }}"
    )
    return whole


@contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """The port of an nginx before the server at the port `upstream`; it is ended with the block."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    whole = configured(folder, f"127.0.0.1:{upstream}", f"127.0.0.1:{port}")
    with subprocess.Popen(["nginx", "-c", str(whole)], stderr=subprocess.DEVNULL) as process:
        try:
            wait_listening(port, process)
            yield port
        finally:
            process.terminate()


def wait_listening(port: int, process: "subprocess.Popen[bytes]") -> None:
    """Until somebody takes connections there."""
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            continue
        return
    pytest.fail("no nginx")
