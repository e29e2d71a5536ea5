"""Run a command: `python -m tarmac.cli COMMAND`."""

import sys

from tarmac.cli.main import main

sys.exit(main())
