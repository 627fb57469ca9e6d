#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""extract.py FOLDER: writes the JSON files beside this script from the original ones in FOLDER (src/data of the crate).

Taken over are inputs, results and the number of every test; comments, flags and the layout of groups are left out."""
import hashlib
import json
import pathlib
import sys

SOURCES = {
    "chacha20_poly1305": "fe61d25f90e1bde4461d00eafe61049e5f29bd999f36b766df9cda90906ad53d",
    "xchacha20_poly1305": "a79de072571b90eb40c3a63ce0c7f75dcb4b62323c8870228e1f61dcc61d63a9",
    "x25519": "35c3f5231cf25cc640b524d403461deee9e49441d5d915a3a25b2c8ff5adbe7d",
}
AEAD = ["key", "iv", "aad", "msg", "ct", "tag"]
FIELDS = {"chacha20_poly1305": AEAD, "xchacha20_poly1305": AEAD, "x25519": ["public", "private", "shared"]}


def main():
    for name, want in SOURCES.items():
        text = (pathlib.Path(sys.argv[1]) / f"{name}_test.json").read_bytes()
        if hashlib.sha256(text).hexdigest() != want:
            sys.exit(f"{name}_test.json is not the file these vectors were made of")
        tests = [t for group in json.loads(text)["testGroups"] for t in group["tests"]]
        head = {
            "licence": "Apache-2.0, see LICENSE beside this file",
            "changed": f"extracted from {name}_test.json of Wycheproof by extract.py: comments, flags and groups left out",
            "fields": ["tcId", *FIELDS[name], "result"],
        }
        rows = [json.dumps([t["tcId"], *(t[f] for f in FIELDS[name]), t["result"]], separators=(",", ":")) for t in tests]
        out = json.dumps(head, indent=0)[:-2] + ',\n"tests": [\n' + ",\n".join(rows) + "\n]\n}\n"
        json.loads(out)
        (pathlib.Path(__file__).parent / f"{name}.json").write_text(out)
        print(f"{name}.json: {len(rows)} tests")


main()
