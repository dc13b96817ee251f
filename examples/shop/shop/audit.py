"""Signals: an audit line for everything that happens to a task in a worker."""

import logging

from celery import signals

logger = logging.getLogger("shop.audit")


@signals.task_received.connect
def received(request, **kwargs):
    logger.info("signal task_received[%s] %s", request.id, request.name)


@signals.task_prerun.connect
def prerun(sender, task_id, task, args, kwargs, **extra):
    logger.info("signal task_prerun[%s] %s %r %r", task_id, sender.name, args, kwargs)


@signals.task_postrun.connect
def postrun(sender, task_id, task, args, kwargs, retval, state, **extra):
    logger.info("signal task_postrun[%s] %s %s %r", task_id, sender.name, state, retval)


@signals.task_success.connect
def success(sender, result, **kwargs):
    logger.info("signal task_success[%s] %r", sender.request.id, result)


@signals.task_failure.connect
def failure(sender, task_id, exception, args, kwargs, traceback, einfo, **extra):
    logger.info("signal task_failure[%s] %r", task_id, exception)


@signals.task_retry.connect
def retry(sender, request, reason, einfo, **kwargs):
    logger.info("signal task_retry[%s] %r", request.id, reason)


@signals.task_revoked.connect
def revoked(sender, request, terminated, signum, expired, **kwargs):
    logger.info("signal task_revoked[%s] %r %r %r", request.id, terminated, signum, expired)


@signals.task_unknown.connect
def unknown(sender, name, id, **kwargs):
    logger.info("signal task_unknown[%s] %s", id, name)


@signals.worker_ready.connect
def ready(sender, **kwargs):
    logger.info("signal worker_ready")


@signals.worker_process_init.connect
def process_init(**kwargs):
    logger.info("signal worker_process_init")


@signals.worker_shutdown.connect
def shutdown(sender, **kwargs):
    logger.info("signal worker_shutdown")
