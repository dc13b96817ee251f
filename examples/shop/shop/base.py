"""The base class of the shop's tasks: hooks that a real project uses for its metrics."""

from celery import Task
from celery.utils.log import get_task_logger

logger = get_task_logger(__name__)


class ShopTask(Task):
    """Logs every hook with the task's id, so that a run can be read back from the log."""

    def before_start(self, task_id, args, kwargs):
        logger.info("hook before_start[%s] %r %r", task_id, args, kwargs)

    def on_success(self, retval, task_id, args, kwargs):
        logger.info("hook on_success[%s] %r", task_id, retval)

    def on_retry(self, exc, task_id, args, kwargs, einfo):
        logger.info("hook on_retry[%s] %r %s", task_id, exc, type(einfo).__name__)

    def on_failure(self, exc, task_id, args, kwargs, einfo):
        logger.info("hook on_failure[%s] %r %s", task_id, exc, type(einfo).__name__)

    def after_return(self, status, retval, task_id, args, kwargs, einfo):
        logger.info("hook after_return[%s] %s %r", task_id, status, retval)
