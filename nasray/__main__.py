"""`python -m nasray`."""

import sys

from nasray.cli import main

sys.exit(main())
