"""Turns public sets, as their authors distribute them, into what `make bench-quality DIR=folder` reads.

    python tests/bench/public_sets.py FROM TO

FROM holds files that you downloaded under their own licences; a set whose files are not there is left out. TO gets
`<model>.<set>.train.jsonl` and `.test.jsonl` for each. Nothing is fetched, and nothing of a set is part of Tarmac.

| set | files in FROM |
| --- | --- |
| TREC, coarse classes | `TREC.train.all`, `TREC.test.all`: a class and a question a line |
| SST-2, whole sentences | `stsa.binary.train`, `stsa.binary.test`: a class and a sentence a line |
| Universal Dependencies EWT, UPOS | `ewt-train.conllu`, `ewt-test.conllu` |
| GAP | `gap-development.tsv`, `gap-test.tsv`, which its authors have for training and for testing |
| SemEval 2010 task 8 | `semeval.train.txt`, `semeval.test.txt`: TRAIN_FILE.TXT, TEST_FILE_FULL.TXT |
| Inspec (Hulth 2003), uncontrolled keyphrases | `Hulth2003/Training`, `Hulth2003/Test` |
| MovieLens 100K | `u.data`: user, item, rating, time, with tabs or `|` |

Of MovieLens, a fifth of the lines is the test part, chosen by the hash of user and item: its authors' own splits have
test users with ten ratings each or repeat each other. `movielens` keeps the ratings; `movielens-liked` has the pairs
with a rating of 4 or 5 alone, without the rating.
"""

import csv
import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Values = Iterable[dict[str, Any]]


def main(source: Path, target: Path) -> None:
    """Convert each set whose files are there, and print what was written."""
    target.mkdir(parents=True, exist_ok=True)
    for name, (files, read) in SETS.items():
        parts = {part: source / file for part, file in zip(("train", "test"), files, strict=True)}
        if not all(path.exists() for path in parts.values()):
            print(f"{name}: left out, {' or '.join(files)} is not in {source}")
            continue
        for part, path in parts.items():
            lines = list(read(path, part))
            with (target / f"{name}.{part}.jsonl").open("w", encoding="utf-8") as out:
                out.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            print(f"{name}.{part}.jsonl: {len(lines):,} lines")


def labelled(kind: str) -> Callable[[Path, str], Values]:
    """Read a class and a text a line."""

    def read(path: Path, _: str) -> Values:
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            label, text = line.split(" ", 1)
            yield {"sentence": text.strip(), "sentiment": {kind: int(label)}}

    return read


def conllu(path: Path, _: str) -> Values:
    """Read tokens and their UPOS tags."""
    words: list[str] = []
    tags: list[str] = []
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        columns = line.split("\t")
        if not line.strip() and words:
            yield {"sentence": " ".join(words), "pos": tags}
            words, tags = [], []
        elif len(columns) == 10 and columns[0].isdigit():
            words.append("_".join(columns[1].split()))
            tags.append(columns[3])


def gap(path: Path, _: str) -> Values:
    """Read the two pairs of a passage: the sentence of the name, and that of the pronoun."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE):
            second = _around(row["Text"], int(row["Pronoun-offset"]), row["Pronoun"])
            for one in "AB":
                reference = {
                    "sentence_1_entity": _tokens(row[one]),
                    "sentence_2_entity": row["Pronoun"],
                    "coreferent": row[f"{one}-coref"] == "TRUE",
                }
                first = _around(row["Text"], int(row[f"{one}-offset"]), row[one])
                sides = ((reference["sentence_1_entity"], first), (reference["sentence_2_entity"], second))
                # A few mentions are a part of a token.
                if all(f" {mention} " in f" {sentence} " for mention, sentence in sides):
                    yield {"sentence": first, "coreference": [{"sentence_2": second, "references": [reference]}]}


def semeval(path: Path, _: str) -> Values:
    """Read the relation of the two nominals; the class has the direction."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for place, line in enumerate(lines):
        found = re.match(r"\d+\t\"?(.*<e1>.*</e2>.*?)\"?\s*$", line)
        if not found:
            continue
        one, two = (
            _tokens(re.search(rf"<{tag}>(.*?)</{tag}>", found[1])[1])  # type: ignore[index]
            for tag in ("e1", "e2")
        )
        relation = lines[place + 1].strip()
        yield {
            "sentence": _tokens(re.sub(r"</?e[12]>", " ", found[1])),
            "relations": [
                {
                    "sub": {"entity": one},
                    "obj": {"entity": two},
                    "relation": "no_relation" if relation == "Other" else relation,
                }
            ],
        }


def hulth(path: Path, _: str) -> Values:
    """Read title and abstract, and those uncontrolled keyphrases that occur."""
    for abstract in sorted(path.glob("*.abstr"), key=lambda file: int(file.stem)):
        text = _tokens(abstract.read_text(encoding="utf-8", errors="replace"))
        given = abstract.with_suffix(".uncontr").read_text(encoding="utf-8", errors="replace")
        phrases = [_tokens(phrase) for phrase in " ".join(given.split()).split(";") if phrase.strip()]
        padded = f" {text.lower()} "
        yield {"sentence": text, "keyphrases": [phrase for phrase in phrases if f" {phrase.lower()} " in padded]}


def movielens(liked: bool) -> Callable[[Path, str], Values]:
    """Read one part of the ratings."""

    def read(path: Path, part: str) -> Values:
        for line in path.read_text(encoding="utf-8").splitlines():
            user, item, rating, _ = re.split(r"[\t|]", line)
            if not user.isdigit():
                continue
            held = hashlib.sha256(f"{user} {item}".encode()).digest()[0] % 5 == 0
            if held != (part == "test") or (liked and int(rating) < 4):
                continue
            yield {"user": user, "item": item, **({} if liked else {"rating": int(rating)})}

    return read


def _around(text: str, place: int, mention: str) -> str:
    """The tokens of the sentence of a mention at a place, by its full stops; of the whole text where they mislead."""
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s+[A-Z])", text)]
    start = max([0, *(end for end in ends if end <= place)])
    end = min([len(text), *(end for end in ends if end > place + len(mention))])
    sentence = _tokens(text[start:end])
    return sentence if f" {_tokens(mention)} " in f" {sentence} " else _tokens(text)


def _tokens(text: str) -> str:
    return " ".join(_pieces(text))


def _pieces(text: str) -> Iterator[str]:
    for match in re.finditer(r"\w+(?:[-.]\w+)*|'\w+|[^\w\s]", text):
        yield match[0]


SETS: dict[str, tuple[tuple[str, str], Callable[[Path, str], Values]]] = {
    "sentiment_analysis_categorical.trec": (("TREC.train.all", "TREC.test.all"), labelled("categorical")),
    "sentiment_analysis_binary.sst2": (("stsa.binary.train", "stsa.binary.test"), labelled("binary")),
    "part_of_speech_tagging.ewt": (("ewt-train.conllu", "ewt-test.conllu"), conllu),
    "coreference_resolution.gap": (("gap-development.tsv", "gap-test.tsv"), gap),
    "relation_extraction.semeval8": (("semeval.train.txt", "semeval.test.txt"), semeval),
    "keyphrase_extraction.inspec": (("Hulth2003/Training", "Hulth2003/Test"), hulth),
    "collaborative_filtering.movielens": (("u.data", "u.data"), movielens(liked=False)),
    "collaborative_filtering.movielens-liked": (("u.data", "u.data"), movielens(liked=True)),
}
"""By what its files are called in TO: the files in FROM, and what reads them."""


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
