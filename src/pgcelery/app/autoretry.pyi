from pgcelery.compat.app.autoretry import *  # noqa: F403
