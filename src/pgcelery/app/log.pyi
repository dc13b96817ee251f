from pgcelery.compat.app.log import *  # noqa: F403
