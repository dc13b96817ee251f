from pgcelery.compat.app.defaults import *  # noqa: F403
