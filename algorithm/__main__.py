"""`python -m algorithm`: the container's entry point."""

import sys

from algorithm.entry import main

sys.exit(main())
