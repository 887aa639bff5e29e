"""codesieve turns raw code into a training corpus, trains models on it, and measures which quality decisions paid.

The repository root is the package: the folders beside this file are the rooms (`curation`, `classifiers`, `train`,
`eval`, `sandbox`, `report`), `workflow.py` knows them all, `cli.py` handles arguments and nothing else.
"""

__version__ = "0.1.0"
