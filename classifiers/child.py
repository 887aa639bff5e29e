"""The child process that trains fastText: `python -P child.py INPUT OUTPUT PARAMETERS` (parameters as JSON).

It is a file to run and imports nothing of codesieve, so it starts in 0.2 s and works wherever the package lies. Why a
process of its own: below ten threads fastText leaves part of its input matrix uninitialised, so the weights depend on
what malloc returns; `training.py` starts this in a fresh process with `MALLOC_PERTURB_` set and one thread.
"""

import json
import sys

import fasttext
import numpy


def main() -> None:
    """Train, refuse a model that holds NaN, save."""
    input_file, output_file, parameters = sys.argv[1:]
    model = fasttext.train_supervised(input=input_file, thread=1, verbose=0, **json.loads(parameters))
    for matrix in (model.get_input_matrix(), model.get_output_matrix()):
        if not numpy.isfinite(matrix).all():
            sys.exit("the trained model holds NaN")
    model.save_model(output_file)


if __name__ == "__main__":
    main()
