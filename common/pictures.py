"""Old name, for the experiments that have not been rebuilt yet."""

from common.images import UNREADABLE  # noqa: F401
