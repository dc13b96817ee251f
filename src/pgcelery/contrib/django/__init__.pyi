from pgcelery.compat.contrib.django import *  # noqa: F403
