"""What git says about the code that runs."""

import shlex
from subprocess import getoutput

from common.files import ROOT


def git_state():
    """The commit, and whether files other than results and texts differ from it."""
    git = f"2>/dev/null git -C {shlex.quote(str(ROOT))}"
    commit = getoutput(f"{git} rev-parse --verify --short=12 HEAD")
    changes = getoutput(f"{git} status -s -- . ':!*/results/*' ':!*.md'")
    return commit, bool(changes)
