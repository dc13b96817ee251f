from pgcelery.compat.app.events import *  # noqa: F403
