from pgcelery.compat.app.amqp import *  # noqa: F403
