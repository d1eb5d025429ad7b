"""Old name, for the experiments that have not been rebuilt yet."""

from common.files import fetch  # noqa: F401
