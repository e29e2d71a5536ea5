"""Run the command line: `python -m tarmac_trainer`."""

import sys

from tarmac_trainer.cli import main

sys.exit(main())
