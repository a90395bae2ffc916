"""Report card of a trained student: python test_trained_student.py --model_path PATH. The same as `mtdistill test`."""

import sys

from mtdistill.cli import main

if __name__ == "__main__":
    sys.exit(main(["test", *sys.argv[1:]]))
