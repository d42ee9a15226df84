"""Read the letters of an archive from one to five pictures each, after a look at other alphabets.

The letters are Cyrillic, in up to 16 typefaces that matplotlib ships, each distorted by chance; the digits are
handwritten, from scikit-learn. The network was trained on photographs. Letters of other alphabets tell it, in seconds
and with no gradient, which differences between drawings do not matter.
"""

import tempfile
import time
import unicodedata

import numpy as np
from gallery import LINE, RIGHT, SOFT, WRONG, Picture, options, said, taught_and_asked

from fewshot import Embedder, FewShotImageClassifier, adapt, digits, glyphs

args = options(__doc__, "characters").parse_args()

# 1. The data: unaccented letters that come in ten typefaces or more, and thirty drawings of each digit.
everything = glyphs(size=64)
everything = everything.with_classes(everything.classes[everything.counts >= 10])
names = {c: unicodedata.name(c) for c in everything.classes if " WITH " not in unicodedata.name(c)}
letters = everything.with_classes([c for c, name in names.items() if name.startswith("CYRILLIC CAPITAL")])
others = everything.with_classes([c for c, name in names.items() if name.startswith(("LATIN CAPITAL", "GREEK"))])
others, _ = taught_and_asked(others, 8, args.seed)
handwritten, _ = taught_and_asked(digits(size=64), 30, args.seed)
print(f"{len(letters.classes)} letters, {len(letters)} drawings: {''.join(letters.classes)}")

with tempfile.TemporaryDirectory() as cache:  # so that no picture goes through the network twice
    plain = Embedder(cache=cache, progress=False)

    # 2. Look at the other alphabets.
    adapted = adapt(plain, others)
    print(f"looked at {len(others)} drawings of {len(others.classes)} Latin and Greek letters")

    # 3. How good is it with one, two and five pictures of each?
    bars = []
    for what, data in (("letters", letters), ("digits by hand", handwritten)):
        for n in (1, 2, 5):
            taught, asked = taught_and_asked(data, n, args.seed)
            for how, embedder in (("as it comes", plain), ("after the look", adapted)):
                result = FewShotImageClassifier(embedder).fit(taught).test(asked)
                print(f"{what}, {n} of each, {how}: {said(result.right)} of {result.n} right")
                if data is letters:
                    bars.append((f"{n} of each, {how}", result.accuracy, SOFT if embedder is plain else RIGHT))

    # 4. A letter that nobody expected turns up: five pictures, and the model in use knows it, without training.
    taught, asked = taught_and_asked(letters, 5, args.seed)
    new = "Ю"
    model = FewShotImageClassifier(adapted).fit(taught.select(taught.labels != new))
    pictures = model.prepare(taught.select(taught.labels == new))
    start = time.perf_counter()
    model.partial_fit(pictures)
    took = 1e3 * (time.perf_counter() - start)
    strange = asked.select(asked.labels == new)
    print(f"{new} taught to a model in use, in {took:.0f} ms: {said(model.predict(strange.images) == new)} of "
          f"{len(strange)} other drawings right")  # fmt: skip
    rows = np.linspace(0, len(asked) - 1, 32).astype(int)
    answers = model.predict(asked.images[rows])

# 5. The picture.
picture = Picture("Letters from five examples each", f"{len(letters.classes)} Cyrillic letters, asked in other "
                  "typefaces than those taught; wrong answers are framed")  # fmt: skip
shown = [(255 - image, str(answer), LINE if answer == label else WRONG)
         for image, answer, label in zip(asked.images[rows], answers, asked.labels[rows], strict=True)]  # fmt: skip
picture.tiles(0.04, 0.195, 0.54, 8, shown, 0.19)
picture.text(0.61, 0.22, "letters read right", weight="bold")
picture.bars(0.6, 0.29, 0.38, bars, names=0.52)
picture.note(0.61, 0.79, 46, f"The look: {len(others)} drawings of Latin and Greek letters, of none that is asked.")
picture.save(args.out)
