"""`python -m ragworker` is the command `ragworker`."""

import sys

from ragworker.cli import main

sys.exit(main())
