"""Report card of a trained student: python test_trained_student.py --model_path PATH. The same as `mtdistill test`."""

import sys

from mtdistill.cli import script

if __name__ == "__main__":
    script(["test", *sys.argv[1:]])
