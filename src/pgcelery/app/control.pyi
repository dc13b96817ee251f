from pgcelery.compat.app.control import *  # noqa: F403
