"""Tell instruments by their sound: a recording becomes numbers, a few recordings become a class.

The recordings are single notes inside a sound font that comes with the package pretty_midi. Two kinds of features are
joined: a picture of the sound, seen by a network that was trained on photographs, and the loudness of 40 bands.
"""

import re
import struct
from pathlib import Path

import numpy as np
import pretty_midi
from gallery import LINE, RIGHT, WRONG, Picture, averaged, options
from PIL import Image

from fewshot import Embedder, FewShotModel, OwnEmbedder

# Instruments with seven recordings or more, one of each kind, and how the sound font names them.
NAMES = {"flute": "Flute", "trumpet": "Trump", "piano": "Piano ", "koto": "Koto|Shami", "clarinet": "(?i)bb ff clar",
         "bassoon": "Bassoon", "tuba": "Tuba", "violin": "Violin", "guitar": "Dist Gtr", "accordion": "Accordion",
         "choir": "Choir", "saxophone": "Sop[HLFDBG]"}  # fmt: skip
args = options(__doc__, "sounds").parse_args()

# 1. Read the recordings: one chunk of the file holds all waves, another their names, places and rates.
font = (Path(pretty_midi.__file__).parent / "TimGM6mb.sf2").read_bytes()
places = {tag: font.find(tag) for tag in (b"smpl", b"shdr")}
chunk = {tag: font[at + 8 :][: int.from_bytes(font[at + 4 : at + 8], "little")] for tag, at in places.items()}
waves = np.frombuffer(chunk[b"smpl"], "<i2").astype(np.float32) / 2**15
recordings, labels = [], []
for name, start, end, _, _, rate, *_ in struct.iter_unpack("<20sIIIIIBbHH", chunk[b"shdr"]):
    for instrument, pattern in NAMES.items():
        if re.match(pattern, name.decode("latin-1")):
            recordings, labels = [*recordings, (waves[start:end], rate)], [*labels, instrument]
labels = np.array(labels)
print(f"{len(labels)} recordings of {len(NAMES)} instruments")


# 2. From a recording to numbers.
def bands(recording, n=40):
    """Return the loudness of n bands of pitch up to 8 kHz, a row for each moment."""
    wave, rate = recording
    size = 512 if rate < 30_000 else 1024
    wave = np.tile(wave, -(-2 * size // len(wave)))[:rate]
    pieces = np.lib.stride_tricks.sliding_window_view(wave, size)[:: size // 4] * np.hanning(size)
    pitch, edge = (2595 * np.log10(1 + hz / 700) for hz in (np.fft.rfftfreq(size, 1 / rate), 8000))
    weight = np.maximum(0, 1 - np.abs(pitch - np.linspace(0, edge, n + 2)[1:-1, None]) * (n + 1) / edge)
    loudness = np.log(np.abs(np.fft.rfft(pieces)) ** 2 @ weight.T + 1e-6)
    return loudness - loudness.max()


def drawn(recording):
    """Return the picture of a sound: time to the right, pitch upwards."""
    grey = 255 * np.clip(bands(recording).T[::-1] / 12 + 1, 0, 1)
    return Image.fromarray(grey.astype(np.uint8)).resize((128, 128))


def features(recordings):
    """Return what the network sees in the pictures, and the mean and spread of each band."""
    seen = Embedder(img_size=128, progress=False).transform([drawn(one) for one in recordings])
    heard = np.array([np.r_[loud.mean(0), 3 * loud.std(0)] for loud in map(bands, recordings)])
    return np.hstack([part / np.linalg.norm(part, axis=1, keepdims=True) for part in (seen, heard)])


# 3. Learn five recordings of each, ask the others: twenty times, with other fives.
X, right, truth = features(recordings), [], []
for seed in range(args.seed, args.seed + 20):
    order = np.random.default_rng(seed).permutation(len(labels))
    taught = np.concatenate([order[labels[order] == name][:5] for name in NAMES])
    asked = np.setdiff1d(order, taught)
    model = FewShotModel(OwnEmbedder(np.asarray, "picture and bands, 1")).fit(X[taught], labels[taught])
    right, truth = [*right, model.predict(X[asked]) == labels[asked]], [*truth, labels[asked]]
print(f"right, mean of 20 choices of five of each: {averaged(np.mean(right, axis=1))}")

picture = Picture("Instruments from five notes each", "Time to the right, pitch upwards. Wrong answers are framed")
some = np.random.default_rng(args.seed).permutation(len(asked))[:20]
pairs = list(zip(asked[some], model.predict(X[asked[some]]), strict=True))
shown = [(drawn(recordings[i]), str(name), LINE if name == labels[i] else WRONG) for i, name in pairs]
picture.tiles(0.04, 0.18, 0.48, 5, shown, 0.196)
right, truth = np.ravel(right), np.ravel(truth)
rows = sorted(((name, right[truth == name].mean(), RIGHT) for name in NAMES), key=lambda row: -row[1])
picture.text(0.67, 0.2, "named right, mean of 20 choices", weight="bold")
picture.bars(0.58, 0.245, 0.38, rows, 0.06, 0.35)
picture.save(args.out)
