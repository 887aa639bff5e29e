"""Runs one peer over a sample, in the peer's own interpreter: `peers.py` starts it. Imports nothing of codesieve.

    python peers_inside.py PEER SAMPLE.jsonl RESULT.json [FOLDER OF THE PEER'S SOURCE]

SAMPLE holds one JSON object a line: text, language, path. The documents are in memory before the clock starts, and each
peer is called as its own pipeline calls it. RESULT gets the CPU seconds of the pass and values to check.
"""

import json
import os
import sys
import time
import warnings
from pathlib import Path

EXTENSIONS = {"python": "py", "javascript": "js", "c": "c", "java": "java", "go": "go", "c++": "cpp"}
MIME_TYPES = {
    "javascript": "application/javascript",
    "c": "text/x-c",
    "c++": "text/x-c++",
    "java": "text/x-java-source",
    "go": "text/x-go",
}


def code_quality(documents, folder):
    """data-prep-toolkit's code_quality, one table; its tokenizer is replaced by one that splits at white space."""
    import pyarrow as pa
    from dpk_code_quality import transform

    transform.load_model = lambda *_: lambda text, truncation: {"input_ids": text.split()}
    parameters = {
        "contents_column_name": "text",
        "language_column_name": "language",
        "tokenizer": "none",
        "hf_token": "none",
    }
    step = transform.CodeQualityTransform({transform.CODE_QUALITY_PARAMS: parameters})
    table = pa.Table.from_pylist(documents)

    def run():
        [made], _ = step.transform(table)
        return {"alphanumeric_fraction": made.column("alphanum_frac").to_pylist()}

    return run


def nemo_curator(documents, folder):
    """NeMo Curator's code filters by `score_document`; its SentencePiece ratio is left out."""
    from nemo_curator.stages.text.filters.heuristic.code import code

    comments = {name: code.GeneralCommentToCodeFilter(mime) for name, mime in MIME_TYPES.items()}
    comments["python"] = code.PythonCommentToCodeFilter()
    others = [code.NumberOfLinesOfCodeFilter(), code.XMLHeaderFilter(), code.AlphaFilter()]

    def run():
        shares = []
        for document in documents:
            text = document["text"]
            shares.append(comments[document["language"]].score_document(text))
            for other in others:
                other.score_document(text)
        return {"comment_fraction": shares}

    return run


def dolma_starcoder(documents, folder):
    """Dolma's StarCoder tagger, version 1: version 2 takes no comment share outside Python, Java and JavaScript."""
    from dolma.core.data_types import DocumentWithMetadata
    from dolma.taggers.code.code_taggers import CodeStarCoderTaggers

    tagger = CodeStarCoderTaggers()
    made = [
        DocumentWithMetadata("", str(place), one["text"], metadata={"ext": EXTENSIONS[one["language"]]})
        for place, one in enumerate(documents)
    ]

    def run():
        spans = [{span.type: span.score for span in tagger.predict(one).spans} for one in made]
        return {"comment_fraction": [one["nl_ratio_doc"] for one in spans]}

    return run


def dolma_redpajama(documents, folder):
    """Dolma's RedPajama tagger: line lengths, alphanumeric share, letters a token."""
    from dolma.core.data_types import Document
    from dolma.taggers.code.code_taggers import CodeRedPajamaTaggers

    tagger = CodeRedPajamaTaggers()
    made = [Document("", str(place), one["text"]) for place, one in enumerate(documents)]

    def run():
        spans = [{span.type: span.score for span in tagger.predict(one).spans} for one in made]
        return {"alphanumeric_fraction": [one["alnum_prop_doc"] for one in spans]}

    return run


def opencoder(documents, folder):
    """OpenCoder's quality signals and its rules; its fastText language identification is left out (no model)."""
    os.chdir(folder)
    sys.path.insert(0, folder)
    from pipeline.compute_filtering import CodeFilter
    from pipeline.compute_quality_signals import ComputeCodeQualitySignal

    signals, rules = ComputeCodeQualitySignal(), CodeFilter()
    names = {"c++": "cpp"}

    def run():
        shares = []
        for one in documents:
            text, language = one["text"], names.get(one["language"], one["language"])
            name = one["path"].rpartition("/")[2]
            measured = json.loads(
                signals.evaluate(text, name, "en", EXTENSIONS[one["language"]], len(text.encode()), language, "code")
            )["quality_signal"]
            rules.evaluate("code", "en", language, measured)
            shares.append(json.loads(measured).get("qsc_code_frac_chars_comments"))
        return {"comment_fraction": shares}

    return run


PEERS = {
    "data-prep-toolkit": code_quality,
    "nemo-curator": nemo_curator,
    "dolma-starcoder": dolma_starcoder,
    "dolma-redpajama": dolma_redpajama,
    "opencoder": opencoder,
}


def main():
    """Run and write the result."""
    peer, sample, result, *folder = sys.argv[1:]
    warnings.simplefilter("ignore")
    with Path(sample).open(encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    run = PEERS[peer](documents, *folder, *([None] if not folder else []))
    result = Path(result).absolute()
    started = time.process_time()
    values = run()
    seconds = time.process_time() - started
    result.write_text(json.dumps({"seconds": seconds, "values": values}, default=float))


if __name__ == "__main__":
    main()
