"""A Celery application whose client is made at import, before its workers fork. `JOBS` and `BROKER` name folders."""

import os
from pathlib import Path

from celery import Celery

from actorstate.client.sync import connect

folders = {name: Path(os.environ["BROKER"]) / name for name in ("data", "control", "processed")}
for folder in folders.values():
    folder.mkdir(parents=True, exist_ok=True)
app = Celery("tests", broker="filesystem://")
app.conf.broker_transport_options = {
    "data_folder_in": str(folders["data"]),
    "data_folder_out": str(folders["data"]),
    "control_folder": str(folders["control"]),
    "processed_folder": str(folders["processed"]),
    "polling_interval": 0.05,
}
client = connect(os.environ["JOBS"], autostart=False)
client.get("import-42")  # in the parent too: a socket that the children must not use


@app.task
def count(rows):
    """Reports so many rows, and reads the job."""
    with client.attach("import-42") as job:
        for _ in range(rows):
            job.progress(succeeded=1)
    assert client.get("import-42").progress.processed >= rows
