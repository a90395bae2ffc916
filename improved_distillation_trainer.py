"""The menu of presets: choose 1-5, confirm, wait, done. The same as `mtdistill` without a command."""

import sys

from mtdistill.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
