"""The settings that mean something here, with default, type and old name. Data only.

Source: Celery 5.7, userguide "Configuration and defaults". `defaults_foreign` has the rest.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Literal

Judgement = Literal["implement", "map", "warn", "silent", "refuse"]

IMPLEMENT: Judgement = "implement"  #: as in Celery
MAP: Judgement = "map"  #: the engine has another way to the same end
WARN: Judgement = "warn"  #: no effect; said once if it is set
SILENT: Judgement = "silent"  #: no effect, and none is missed
REFUSE: Judgement = "refuse"  #: no effect; selecting what it belongs to is an error

DEFAULT_PROCESS_LOG_FMT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
DEFAULT_TASK_LOG_FMT = (
    "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"
)

#: name, default, type, judgement, and the name before Celery 4 unless that is the upper case
Row = tuple[str, Any, str, Judgement] | tuple[str, Any, str, Judgement, str]

SETTINGS: list[Row] = [
    ("accept_content", ("json",), "list", IMPLEMENT, "CELERY_ACCEPT_CONTENT"),
    ("result_accept_content", None, "list", IMPLEMENT),
    ("enable_utc", True, "bool", IMPLEMENT),
    ("imports", (), "tuple", IMPLEMENT, "CELERY_IMPORTS"),
    ("include", (), "tuple", IMPLEMENT, "CELERY_INCLUDE"),
    ("timezone", None, "string", IMPLEMENT, "CELERY_TIMEZONE"),
    ("beat_enable_remote_control", False, "bool", IMPLEMENT, "CELERYBEAT_ENABLE_REMOTE_CONTROL"),
    (
        "beat_remote_control_max_tick_age",
        None,
        "float",
        IMPLEMENT,
        "CELERYBEAT_REMOTE_CONTROL_MAX_TICK_AGE",
    ),
    ("beat_max_loop_interval", 0, "float", IMPLEMENT, "CELERYBEAT_MAX_LOOP_INTERVAL"),
    ("beat_schedule", {}, "dict", IMPLEMENT, "CELERYBEAT_SCHEDULE"),
    ("beat_scheduler", "celery.beat:PersistentScheduler", "string", MAP, "CELERYBEAT_SCHEDULER"),
    (
        "beat_schedule_filename",
        "celerybeat-schedule",
        "string",
        MAP,
        "CELERYBEAT_SCHEDULE_FILENAME",
    ),
    ("beat_sync_every", 0, "int", IMPLEMENT, "CELERYBEAT_SYNC_EVERY"),
    ("beat_cron_starting_deadline", None, "int", IMPLEMENT, "CELERYBEAT_CRON_STARTING_DEADLINE"),
    ("broker_url", None, "string", IMPLEMENT),
    ("broker_read_url", None, "string", IMPLEMENT),
    ("broker_write_url", None, "string", IMPLEMENT),
    ("broker_transport_options", {}, "dict", MAP),
    ("broker_connection_timeout", 4, "float", IMPLEMENT),
    ("broker_connection_retry", True, "bool", IMPLEMENT),
    ("broker_connection_retry_on_startup", None, "bool", IMPLEMENT),
    ("broker_connection_max_retries", 100, "int", IMPLEMENT),
    ("broker_pool_limit", 10, "int", IMPLEMENT),
    ("broker_pool_acquire_timeout", None, "float", IMPLEMENT),
    ("broker_use_ssl", False, "bool", MAP),
    ("control_queue_ttl", 300.0, "float", MAP),
    ("control_queue_expires", 10.0, "float", MAP),
    ("control_queue_exclusive", True, "bool", MAP),
    ("control_queue_durable", False, "bool", MAP),
    ("control_exchange", "celery", "string", MAP),
    ("event_queue_expires", 60.0, "float", MAP, "CELERY_EVENT_QUEUE_EXPIRES"),
    ("event_queue_ttl", 5.0, "float", MAP, "CELERY_EVENT_QUEUE_TTL"),
    ("event_queue_prefix", "celeryev", "string", MAP, "CELERY_EVENT_QUEUE_PREFIX"),
    ("event_queue_exclusive", True, "bool", MAP, "CELERY_EVENT_QUEUE_EXCLUSIVE"),
    ("event_queue_durable", False, "bool", MAP, "CELERY_EVENT_QUEUE_DURABLE"),
    ("event_serializer", "json", "string", IMPLEMENT, "CELERY_EVENT_SERIALIZER"),
    ("event_exchange", "celeryev", "string", MAP, "CELERY_EVENT_EXCHANGE"),
    ("result_backend", None, "string", IMPLEMENT, "CELERY_RESULT_BACKEND"),
    ("result_compression", None, "str", IMPLEMENT, "CELERY_RESULT_COMPRESSION"),
    ("result_expires", timedelta(days=1), "float", IMPLEMENT, "CELERY_TASK_RESULT_EXPIRES"),
    ("result_chord_expires", None, "float", IMPLEMENT, "CELERY_RESULT_CHORD_EXPIRES"),
    ("result_failure_expires", None, "float", IMPLEMENT, "CELERY_RESULT_FAILURE_EXPIRES"),
    ("result_persistent", None, "bool", IMPLEMENT, "CELERY_RESULT_PERSISTENT"),
    ("result_extended", False, "bool", IMPLEMENT, "CELERY_RESULT_EXTENDED"),
    ("result_serializer", "json", "string", IMPLEMENT, "CELERY_RESULT_SERIALIZER"),
    (
        "result_backend_transport_options",
        {},
        "dict",
        IMPLEMENT,
        "CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS",
    ),
    ("result_chord_retry_interval", 1.0, "float", MAP, "CELERY_RESULT_CHORD_RETRY_INTERVAL"),
    ("result_chord_join_timeout", 3.0, "float", MAP, "CELERY_RESULT_CHORD_JOIN_TIMEOUT"),
    (
        "result_backend_max_sleep_between_retries_ms",
        10000,
        "int",
        IMPLEMENT,
        "CELERY_RESULT_BACKEND_MAX_SLEEP_BETWEEN_RETRIES_MS",
    ),
    (
        "result_backend_max_retries",
        math.inf,
        "float",
        IMPLEMENT,
        "CELERY_RESULT_BACKEND_MAX_RETRIES",
    ),
    (
        "result_backend_base_sleep_between_retries_ms",
        10,
        "int",
        IMPLEMENT,
        "CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS",
    ),
    ("result_backend_always_retry", False, "bool", IMPLEMENT, "CELERY_RESULT_BACKEND_ALWAYS_RETRY"),
    ("security_certificate", None, "string", IMPLEMENT, "CELERY_SECURITY_CERTIFICATE"),
    ("security_cert_store", None, "string", IMPLEMENT, "CELERY_SECURITY_CERT_STORE"),
    ("security_key", None, "string", IMPLEMENT, "CELERY_SECURITY_KEY"),
    ("security_key_password", None, "bytes", IMPLEMENT, "CELERY_SECURITY_KEY_PASSWORD"),
    ("security_digest", "sha256", "string", IMPLEMENT, "CELERY_SECURITY_DIGEST"),
    ("database_table_schemas", None, "dict", MAP),
    ("database_table_names", None, "dict", MAP, "CELERY_RESULT_DB_TABLENAMES"),
    ("task_acks_late", False, "bool", MAP, "CELERY_ACKS_LATE"),
    ("task_acks_on_failure_or_timeout", True, "bool", MAP, "CELERY_ACKS_ON_FAILURE_OR_TIMEOUT"),
    ("task_acks_on_failure", None, "bool", MAP, "CELERY_ACKS_ON_FAILURE"),
    ("task_acks_on_timeout", None, "bool", MAP, "CELERY_ACKS_ON_TIMEOUT"),
    ("task_always_eager", False, "bool", IMPLEMENT, "CELERY_ALWAYS_EAGER"),
    ("task_annotations", None, "any", IMPLEMENT, "CELERY_ANNOTATIONS"),
    ("task_compression", None, "string", IMPLEMENT, "CELERY_MESSAGE_COMPRESSION"),
    ("task_create_missing_queues", True, "bool", IMPLEMENT, "CELERY_CREATE_MISSING_QUEUES"),
    ("task_inherit_parent_priority", False, "bool", MAP, "CELERY_INHERIT_PARENT_PRIORITY"),
    ("task_default_queue", "celery", "string", IMPLEMENT, "CELERY_DEFAULT_QUEUE"),
    ("task_default_exchange", None, "string", IMPLEMENT, "CELERY_DEFAULT_EXCHANGE"),
    ("task_default_exchange_type", "direct", "string", IMPLEMENT, "CELERY_DEFAULT_EXCHANGE_TYPE"),
    ("task_default_routing_key", None, "string", IMPLEMENT, "CELERY_DEFAULT_ROUTING_KEY"),
    ("task_default_rate_limit", None, "string", MAP, "CELERY_DEFAULT_RATE_LIMIT"),
    ("task_default_priority", None, "string", MAP, "CELERY_DEFAULT_PRIORITY"),
    ("task_eager_propagates", False, "bool", IMPLEMENT, "CELERY_EAGER_PROPAGATES_EXCEPTIONS"),
    ("task_ignore_result", False, "bool", IMPLEMENT, "CELERY_IGNORE_RESULT"),
    ("task_store_eager_result", False, "bool", IMPLEMENT, "CELERY_STORE_EAGER_RESULT"),
    ("task_publish_retry", True, "bool", IMPLEMENT, "CELERY_TASK_PUBLISH_RETRY"),
    (
        "task_publish_retry_policy",
        {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
        "dict",
        IMPLEMENT,
        "CELERY_TASK_PUBLISH_RETRY_POLICY",
    ),
    ("task_queues", None, "dict", IMPLEMENT, "CELERY_QUEUES"),
    ("task_queue_max_priority", None, "int", MAP, "CELERY_QUEUE_MAX_PRIORITY"),
    ("task_reject_on_worker_lost", None, "bool", MAP, "CELERY_REJECT_ON_WORKER_LOST"),
    ("task_retry_on_worker_lost", False, "bool", MAP, "CELERY_RETRY_ON_WORKER_LOST"),
    ("task_remote_tracebacks", False, "bool", IMPLEMENT, "CELERY_REMOTE_TRACEBACKS"),
    ("task_repr_maxlevels", 3, "int", IMPLEMENT, "CELERY_REPR_MAXLEVELS"),
    ("task_routes", None, "any", IMPLEMENT, "CELERY_ROUTES"),
    ("task_send_sent_event", False, "bool", IMPLEMENT, "CELERY_SEND_TASK_SENT_EVENT"),
    ("task_serializer", "json", "string", IMPLEMENT, "CELERY_TASK_SERIALIZER"),
    ("task_soft_time_limit", None, "float", MAP, "CELERYD_TASK_SOFT_TIME_LIMIT"),
    ("task_time_limit", None, "float", MAP, "CELERYD_TASK_TIME_LIMIT"),
    (
        "task_store_errors_even_if_ignored",
        False,
        "bool",
        IMPLEMENT,
        "CELERY_STORE_ERRORS_EVEN_IF_IGNORED",
    ),
    ("task_track_started", False, "bool", IMPLEMENT, "CELERY_TRACK_STARTED"),
    (
        "task_allow_error_cb_on_chord_header",
        False,
        "bool",
        IMPLEMENT,
        "CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER",
    ),
    (
        "worker_autoscaler",
        "celery.worker.autoscale:Autoscaler",
        "string",
        IMPLEMENT,
        "CELERYD_AUTOSCALER",
    ),
    (
        "worker_cancel_long_running_tasks_on_connection_loss",
        False,
        "bool",
        IMPLEMENT,
        "CELERYD_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS",
    ),
    ("worker_soft_shutdown_timeout", 0.0, "float", IMPLEMENT, "CELERYD_SOFT_SHUTDOWN_TIMEOUT"),
    (
        "worker_enable_soft_shutdown_on_idle",
        False,
        "bool",
        IMPLEMENT,
        "CELERYD_ENABLE_SOFT_SHUTDOWN_ON_IDLE",
    ),
    ("worker_concurrency", None, "any", IMPLEMENT, "CELERYD_CONCURRENCY"),
    ("worker_direct", False, "bool", IMPLEMENT, "CELERY_WORKER_DIRECT"),
    ("worker_disable_rate_limits", False, "bool", IMPLEMENT, "CELERY_DISABLE_RATE_LIMITS"),
    (
        "worker_deduplicate_successful_tasks",
        False,
        "bool",
        MAP,
        "CELERYD_DEDUPLICATE_SUCCESSFUL_TASKS",
    ),
    ("worker_enable_remote_control", True, "bool", IMPLEMENT, "CELERY_ENABLE_REMOTE_CONTROL"),
    ("worker_hijack_root_logger", True, "bool", IMPLEMENT, "CELERYD_HIJACK_ROOT_LOGGER"),
    ("worker_log_color", None, "bool", IMPLEMENT, "CELERYD_LOG_COLOR"),
    ("worker_log_datefmt", None, "string", IMPLEMENT, "CELERYD_LOG_DATEFMT"),
    ("worker_log_format", DEFAULT_PROCESS_LOG_FMT, "string", IMPLEMENT, "CELERYD_LOG_FORMAT"),
    ("worker_lost_wait", 10.0, "float", IMPLEMENT, "CELERYD_WORKER_LOST_WAIT"),
    ("worker_max_memory_per_child", None, "int", IMPLEMENT, "CELERYD_MAX_MEMORY_PER_CHILD"),
    ("worker_max_tasks_per_child", None, "int", IMPLEMENT, "CELERYD_MAX_TASKS_PER_CHILD"),
    ("worker_pool", "prefork", "string", IMPLEMENT, "CELERYD_POOL"),
    ("worker_pool_restarts", False, "bool", IMPLEMENT, "CELERYD_POOL_RESTARTS"),
    ("worker_pool_start_method", "fork", "string", IMPLEMENT, "CELERYD_POOL_START_METHOD"),
    ("worker_proc_alive_timeout", 4.0, "float", IMPLEMENT, "CELERYD_PROC_ALIVE_TIMEOUT"),
    ("worker_prefetch_multiplier", 4, "int", MAP, "CELERYD_PREFETCH_MULTIPLIER"),
    ("worker_eta_task_limit", None, "int", MAP, "CELERYD_ETA_TASK_LIMIT"),
    ("worker_disable_prefetch", False, "bool", MAP, "CELERYD_DISABLE_PREFETCH"),
    ("worker_redirect_stdouts", True, "bool", IMPLEMENT, "CELERY_REDIRECT_STDOUTS"),
    (
        "worker_redirect_stdouts_level",
        "WARNING",
        "string",
        IMPLEMENT,
        "CELERY_REDIRECT_STDOUTS_LEVEL",
    ),
    ("worker_send_task_events", False, "bool", IMPLEMENT, "CELERY_SEND_EVENTS"),
    ("worker_state_db", None, "string", IMPLEMENT, "CELERYD_STATE_DB"),
    ("worker_task_log_datefmt", None, "string", IMPLEMENT, "CELERYD_TASK_LOG_DATEFMT"),
    (
        "worker_task_log_format",
        DEFAULT_TASK_LOG_FMT,
        "string",
        IMPLEMENT,
        "CELERYD_TASK_LOG_FORMAT",
    ),
]

#: Settings that Celery does not have.
OURS: list[Row] = [
    ("task_concurrency", None, "any", IMPLEMENT),
    ("task_rate_limits", None, "any", IMPLEMENT),
    ("task_unique", None, "any", IMPLEMENT),
    ("task_placement", None, "any", IMPLEMENT),
    ("task_rate_limit_scope", "worker", "string", IMPLEMENT),
    ("task_priority_direction", "amqp", "string", IMPLEMENT),
    ("task_profile", None, "string", IMPLEMENT),
]

#: What ``task_profile`` makes of defaults; what an application sets itself stays as it sets it.
PROFILES: dict[str, dict[str, Any]] = {
    "celery": {},
    "durable": {
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_store_errors_even_if_ignored": True,
    },
}
