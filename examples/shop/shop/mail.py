"""Mail: a queue of its own, results that nobody reads, callbacks and error callbacks."""

from celery.utils.log import get_task_logger

from .celery import app

logger = get_task_logger(__name__)


@app.task(ignore_result=True)
def send(to, subject):
    """Send a mail."""
    logger.info("mail to %s: %s", to, subject)


@app.task
def receipt(charged, to="customer"):
    """A callback: the result of the task it is linked to comes first."""
    logger.info("receipt for %s: %r", to, charged)
    return f"receipt for {to}: {charged['charged']}"


@app.task
def apologise(request, exc, traceback):
    """An error callback that is called in the worker: (request, exception, traceback)."""
    logger.info("apology for %s: %r", request.task, exc)


@app.task
def report_failure(task_id):
    """An error callback that is sent as a task of its own: (id)."""
    logger.info("failure reported")
    return f"failed {task_id}"
