"""The menu of presets: choose 1-5, confirm, wait, done. The same as `mtdistill` without a command."""

from mtdistill.cli import script

if __name__ == "__main__":
    script()
