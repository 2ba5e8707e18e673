"""People who refresh a job's page far too often: locust -f locustfile.py --host http://127.0.0.1:8080 -u 200 -r 50.

JOB names the job. Each reads the list now and then, and its job as browsers do: by ETag, held tabs by ?wait=.
"""

import os

from locust import FastHttpUser, between, constant, task

JOB = os.environ.get("JOB", "import-42")


class Refreshing(FastHttpUser):
    """Somebody who presses F5."""

    weight = 9
    wait_time = between(0.2, 1.0)
    tag = ""

    @task(9)
    def job(self):
        """The job, unless it is as it was."""
        headers = {"If-None-Match": self.tag} if self.tag else {}
        with self.client.get(f"/api/jobs/{JOB}", headers=headers, name="job", catch_response=True) as answer:
            if answer.status_code in {200, 304}:
                self.tag = answer.headers.get("ETag") or self.tag
                answer.success()

    @task(1)
    def jobs(self):
        """The list."""
        self.client.get("/api/jobs?limit=50", name="list")

    def on_start(self):
        """The page itself, as a new tab asks for it."""
        for path in ("/", "/static/page.js", "/static/list.js", "/static/job.js", "/static/page.css"):
            self.client.get(path, name="page")


class Holding(FastHttpUser):
    """A tab that waits for news."""

    weight = 1
    wait_time = constant(0)
    tag = '"0-0"'

    @task
    def news(self):
        """Held until there is some."""
        path = f"/api/jobs/{JOB}?wait=20"
        with self.client.get(path, headers={"If-None-Match": self.tag}, name="held", catch_response=True) as answer:
            if answer.status_code in {200, 304}:
                self.tag = answer.headers.get("ETag") or self.tag
                answer.success()
