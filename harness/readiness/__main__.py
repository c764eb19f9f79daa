"""`python -m readiness`: the same as the command `readiness`."""

import sys

from readiness.cli import main

sys.exit(main())
