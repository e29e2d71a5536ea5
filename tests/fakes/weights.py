"""The files of a transformer's weights, small, and archives of them."""

from __future__ import annotations

import io
import json
import tarfile

HEADER = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "model.safetensors": len(HEADER).to_bytes(8, "little") + HEADER + b"\0" * 4,
    "tokenizer.json": b"{}",
    "vocab.txt": b"[PAD]\n",
}


def tar(files: dict[str, bytes], *, mtime: int = 0, form: int = tarfile.GNU_FORMAT, before: str = "") -> io.BytesIO:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for name, content in files.items():
            member = tarfile.TarInfo(before + name)
            member.size, member.mtime, member.uid, member.mode = len(content), mtime, mtime % 1000, 0o600
            made.addfile(member, io.BytesIO(content))
    out.seek(0)
    return out
