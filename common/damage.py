"""Old names, for the experiments that have not been rebuilt yet."""

from common.cli import first_line  # noqa: F401
from common.files import max_unpacked_size as most_unpacked  # noqa: F401
from common.files import refuse_bomb  # noqa: F401
