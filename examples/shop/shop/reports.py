"""Long work: progress, time limits, and what a task can know about itself."""

import os
import time

from celery.exceptions import SoftTimeLimitExceeded

from .celery import app


@app.task(bind=True)
def inventory(self, shelves, go):
    """Report progress, then wait for the file `go`."""
    self.update_state(state="PROGRESS", meta={"done": 1, "of": shelves})
    while not os.path.exists(go):
        time.sleep(0.02)
    return {"shelves": shelves}


@app.task
def slow(seconds):
    """Its soft limit (one second) is set by an annotation; it clears up and says so."""
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        return "abandoned"
    return "finished"


@app.task(soft_time_limit=1, time_limit=30)
def slower(seconds):
    """Its soft limit ends it."""
    time.sleep(seconds)


@app.task(time_limit=1)
def slowest(seconds):
    """Its hard limit kills the process it runs in."""
    time.sleep(seconds)


@app.task(bind=True)
def about(self, *args, **kwargs):
    """The request, as the task sees it."""
    request = self.request
    fields = (
        "id task args kwargs retries root_id parent_id group group_index correlation_id "
        "is_eager called_directly eta expires timelimit ignore_result delivery_info "
        "argsrepr kwargsrepr headers lang utc chord replaced_task_nesting stamps"
    )
    found = {name: getattr(request, name, None) for name in fields.split()}
    found["origin_is_set"] = bool(request.origin)
    found["hostname_is_set"] = bool(request.hostname)
    found["headers"] = {k: v for k, v in (request.headers or {}).items() if k.startswith("x-")}
    return found
