"""Settings, in Celery's own names."""

from kombu import Queue

task_default_queue = "shop"
task_queues = [Queue("shop"), Queue("mail", routing_key="mail")]
task_routes = {"shop.mail.*": {"queue": "mail"}}
task_track_started = True
task_send_sent_event = False
task_annotations = {"shop.reports.slow": {"soft_time_limit": 1}}
result_expires = 3600
result_extended = True
result_chord_join_timeout = 10
broker_connection_retry_on_startup = True
worker_hijack_root_logger = True
worker_log_format = "%(levelname)s|%(processName)s|%(name)s|%(message)s"
worker_task_log_format = "%(levelname)s|%(processName)s|%(name)s|%(task_name)s|%(message)s"
enable_utc = True
