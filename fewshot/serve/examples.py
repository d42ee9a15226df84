"""What the routes answer, for the description of the API: real answers of a small service, shortened.

`description` adds them once FastAPI has described the routes, as it would drop what is null.
"""

from __future__ import annotations

from typing import Any

_VERSION = "0fdfaf7072a748f3ef11b25727c3a9ddef6f371b38fd7f9edaf62cd407825b6d"
_FINGERPRINT = "94a2f5ded06459f612fb6f9cf83c7b720886562a0ce15f7cc60d1db90c48c37b"
_HERON, _ODD_HERON, _KINGFISHER = "8a31748ffcca9aa263", "5ba86adc89d3e187f4", "543cc2b70c870c7879"
_UNREADABLE = "is damaged, or not an image that can be read; send JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF, HEIF"
_REFUSED = {"code": "unreadable_image", "message": _UNREADABLE}
_JPEG = "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAYEBQYFBAYGBQYHBwYIChAKCgkJChQODwwQ"

FAILURE: dict[str, Any] = {"error": {"code": "no_class", "message": "there is no class 'heron'"}}

_KNOWN: dict[str, Any] = {
    "name": "new.jpg",
    "label": "heron",
    "unknown": False,
    "doubtful": False,
    "likeliest": "heron",
    "probability": 0.998,
    "top": [{"label": "heron", "probability": 0.998}, {"label": "kingfisher", "probability": 0.002}],
    "set": ["heron"],
    "neighbours": [{"id": _HERON, "name": "heron5.jpg 3e4c4f3e4bee7b6a", "label": "heron", "similarity": 0.9989}],
    "error": None,
}
_UNREAD: dict[str, Any] = {
    "name": "notes.txt",
    "label": None,
    "unknown": False,
    "doubtful": False,
    "likeliest": None,
    "probability": 0.0,
    "top": [],
    "set": [],
    "neighbours": [],
    "error": _REFUSED,
}
#: To an image and a file that is none, with ``coverage=0.9&neighbours=1``.
ANSWERS: dict[str, Any] = {"version": _VERSION, "answers": [_KNOWN, _UNREAD], "notes": []}
#: With ``explain=true&embeddings=true`` too; an embedding has more numbers.
EXPLAINED: dict[str, Any] = {
    "version": _VERSION,
    "answers": [
        {
            **_KNOWN,
            "prototypes": [{"label": "heron", "similarity": 0.3718}, {"label": "kingfisher", "similarity": 0.0606}],
            "margin": 0.3112,
            "embedding": [0.0638, 0.0659, 0.0608],
        },
        {**_UNREAD, "prototypes": [], "margin": 0.0, "embedding": None},
    ],
    "notes": [],
    "fingerprint": _FINGERPRINT,
}
#: With ``matches=1`` too, of a classifier that compares places; a map has more rows, and a picture more bytes.
MATCHED: dict[str, Any] = {
    "version": _VERSION,
    "answers": [
        {
            **_KNOWN,
            "match": {
                "label": "heron",
                "places": [[0.0, 0.0312], [0.3471, 1.0]],
                "picture": _JPEG,
                "examples": [
                    {
                        "id": _HERON,
                        "name": "heron5.jpg 3e4c4f3e4bee7b6a",
                        "places": [[1.0, 0.2254], [0.0418, 0.0]],
                        "picture": _JPEG,
                    }
                ],
            },
        },
        {**_UNREAD, "match": None},
    ],
    "notes": [],
}
EMBEDDED: dict[str, Any] = {
    "fingerprint": _FINGERPRINT,
    "embeddings": [[0.0638, 0.0659, 0.0608], None],
    "errors": [{"index": 1, **_REFUSED}],
}
SUGGESTED: dict[str, Any] = {
    "version": _VERSION,
    "order": [
        {
            "index": 0,
            "name": "new.jpg",
            "label": "heron",
            "likeliest": "heron",
            "probability": 0.998,
            "score": 0.0787,
            "reason": "stands for itself",
        }
    ],
}

#: A new class, from two images and a file that is none.
LEARNED: dict[str, Any] = {
    "class": "heron",
    "new": True,
    "learned": 2,
    "copies": 0,
    "elsewhere": [],
    "unreadable": [{"index": 2, "name": "notes.txt", "message": _UNREADABLE}],
    "examples": [_HERON, _ODD_HERON],
    "milliseconds": 429.6,
    "version": _VERSION,
}
#: A known class, from an image that it holds already and one that another class holds.
LEARNED_MORE: dict[str, Any] = {
    **LEARNED,
    "new": False,
    "learned": 1,
    "copies": 1,
    "elsewhere": [{"index": 1, "name": "kingfisher1.jpg", "class": "kingfisher"}],
    "unreadable": [],
    "examples": ["42c4b80d5318f294eb"],
    "milliseconds": 91.7,
}
CLASSES: dict[str, Any] = {
    "version": _VERSION,
    "total": 2000,
    "classes": [{"name": "heron", "examples": 8, "thumbnails": [_HERON, _ODD_HERON]}],
    "next": "3 heron",
}
EXAMPLES: dict[str, Any] = {
    "version": _VERSION,
    "total": 13,
    "examples": [{"id": _HERON, "class": "heron", "name": "heron5.jpg 3e4c4f3e4bee7b6a"}],
}
CHANGED: dict[str, Any] = {"version": _VERSION, "can_undo": True, "can_redo": False}
UNDONE: dict[str, Any] = {**CHANGED, "can_redo": True}
HISTORY: dict[str, Any] = {
    "version": _VERSION,
    "versions": [
        {
            "number": 1,
            "at": "2026-11-30T12:50:04+00:00",
            "note": "add 8 images of heron",
            "n_classes": 1,
            "n_support": 8,
            "is_current": False,
        },
        {
            "number": 2,
            "at": "2026-11-30T12:51:40+00:00",
            "note": "add 5 images of kingfisher",
            "n_classes": 2,
            "n_support": 13,
            "is_current": True,
        },
    ],
}

MODEL: dict[str, Any] = {
    "name": "herons",
    "fewshot": "0.1.0",
    "version": _VERSION,
    "classes": 2,
    "examples": 13,
    "keeps_examples": True,
    "takes_images": True,
    "compares_places": False,
    "backbone": "conv4, 32 x 32",
    "d": 256,
    "described": {
        "backbone": "conv4, 32 x 32",
        "crop": "adaptive",
        "domain": "none",
        "embedding": "256 numbers",
        "learner": "discriminant, dot, temperature 0.05",
    },
    "fingerprint": _FINGERPRINT,
    "metric": "cosine",
    "label_type": "str",
    "unknown_label": "unknown",
    "can_undo": True,
    "can_redo": False,
    "read_only": False,
    "rejection": "auto",
    "trouble": None,
    "limits": {"body_bytes": 67108864, "archive_bytes": 1073741824, "pixels": 64000000, "images": 256},
}
CHECK: dict[str, Any] = {
    "version": _VERSION,
    "text": "expect 86 % of new images right (52 to 97 %)",
    "accuracy": 0.8567,
    "balanced_accuracy": None,
    "interval": [0.5242, 0.9701],
    "images": 13,
    "alone": [],
    "refused": 0.3846,
    "confused": [{"class": "heron", "other": "kingfisher", "images": 2, "of": 13, "as_other": 1}],
    "classes": [
        {"class": "kingfisher", "images": 5, "accuracy": 0.8319, "with_twice": 0.8779, "gain": 0.0459},
        {"class": "heron", "images": 8, "accuracy": 0.8747, "with_twice": 0.9089, "gain": 0.0342},
    ],
    "mistakes": [
        {
            "example": _ODD_HERON,
            "class": "heron",
            "answer": "kingfisher",
            "probability": 0.9446,
            "neighbours": [_KINGFISHER],
        }
    ],
    "duplicates": [["42c4b80d5318f294eb", "f10c824d8a9fbc3165"]],
}
SUSPECTS: dict[str, Any] = {
    "version": _VERSION,
    "suspects": [
        {
            "id": _ODD_HERON,
            "name": "heron2.jpg 013c8ff8285742f7",
            "class": "heron",
            "reason": "more like kingfisher, such as kingfisher5.jpg c80227d07215e375, unlike the others of its class",
            "taken_for": "kingfisher",
            "neighbour": _KINGFISHER,
            "neighbour_class": "kingfisher",
            "false_alarm": 0.0258,
        }
    ],
}
REJECTION: dict[str, Any] = {
    "version": _VERSION,
    "rejection": "auto",
    "costs": {
        "text": "0 % of unknown images would be taken for a class (0 to 40 % of other classes; measured on 2 classes); "
        "of 100 known ones, 38 would be answered unknown (15 to 69)",
        "threshold": 1.4827,
        "unknown_accepted": 0.0,
        "unknown_accepted_interval": [0.0, 0.4],
        "known_refused": 0.3846,
        "known_refused_interval": [0.1481, 0.692],
        "unknown_label": "unknown",
    },
}
LIVE, READY, NOT_READY = {"status": "live"}, {"status": "ready"}, {"status": "not ready"}

#: By the name of the body in `schemas`.
OF_BODIES: dict[str, list[dict[str, Any]]] = {
    "AnswersBody": [ANSWERS, EXPLAINED, MATCHED],
    "Changed": [CHANGED],
    "CheckBody": [CHECK],
    "Classes": [CLASSES],
    "EmbeddedBody": [EMBEDDED],
    "Examples": [EXAMPLES],
    "FailureBody": [FAILURE],
    "HealthBody": [READY],
    "HistoryBody": [HISTORY],
    "LearnedBody": [LEARNED],
    "ModelBody": [MODEL],
    "RejectionBody": [REJECTION],
    "SuggestedBody": [SUGGESTED],
    "SuspectsBody": [SUSPECTS],
}
#: By route and status, where the answer differs from others of its body.
OF_ANSWERS: dict[tuple[str, str], dict[str, Any]] = {
    ("learn_class", "200"): LEARNED_MORE,
    ("add_examples", "200"): LEARNED_MORE,
    ("undo", "200"): UNDONE,
    ("live", "200"): LIVE,
    ("ready", "503"): NOT_READY,
}

#: One white pixel, as a file in base64.
PIXEL = "R0lGODlhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs="
#: One black pixel, a file all of whose bytes are ASCII, so that text of JSON can hold it as it is sent in a form.
FILE = "GIF89a\x01\0\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;"
