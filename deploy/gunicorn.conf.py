"""gunicorn for the page, with or without --preload: gunicorn --config gunicorn.conf.py web:application.

The client opens nothing before a worker's first request, so `preload_app` saves memory and is safe.
For event streams: `-k asgi` and an application of `actorstate.web.asgi`. uvicorn's worker serves as well, but
when it is replaced (max_requests, HUP) it resets connections that it has accepted and not read: some 5 of 1,000,
github.com/Kludex/uvicorn/pull/3124. Behind nginx.conf none is lost: nginx asks again.
"""

import os

from actorstate.web.shutdown import end_streams_at_exit

bind = os.environ.get("ACTORSTATE_BIND", "127.0.0.1:8137")
workers = int(os.environ.get("ACTORSTATE_WORKERS", "2"))
# Threads: a request that waits for the writer, or is held by ?wait=, does not hold up the others.
worker_class = "gthread"
threads = 8
preload_app = os.environ.get("ACTORSTATE_PRELOAD", "1") == "1"
# Longer than the client's own deadline (2 s) and the longest ?wait= (25 s).
timeout = 60
graceful_timeout = 30
keepalive = 5
max_requests = 100_000
max_requests_jitter = 10_000
control_socket_disable = True
# Behind nginx on the same machine only; other peers' X-Forwarded headers are not believed.
forwarded_allow_ips = "127.0.0.1,::1"


def post_worker_init(worker):
    """Streams and held requests end when this worker is told to: gunicorn would wait `graceful_timeout` for them."""
    application = worker.app.wsgi()
    if hasattr(application, "end_streams"):
        end_streams_at_exit(application.end_streams)
