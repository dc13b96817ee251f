from pgcelery.compat.app.annotations import *  # noqa: F403
