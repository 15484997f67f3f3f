"""Small annotation files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def coco(**changes: Any) -> dict[str, Any]:
    content = {
        "images": [{"id": 7, "file_name": "a.jpg"}, {"id": 9, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [
            {"id": 1, "image_id": 9, "category_id": 3, "bbox": [1, 2, 10, 20], "area": 150},
            {"id": 2, "image_id": 7, "category_id": 1, "bbox": [0, 0, 4, 5], "iscrowd": 1},
        ],
    }
    return content | changes


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path
