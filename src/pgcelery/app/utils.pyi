from pgcelery.compat.app.utils import *  # noqa: F403
