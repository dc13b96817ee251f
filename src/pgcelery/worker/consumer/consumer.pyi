from pgcelery.compat.worker.consumer.consumer import *  # noqa: F403
