#!/usr/bin/env python3
"""Verify one log of keyd by its published format, without keyd: Python 3.8 and OpenSSL 3.
    verify_log.py FOLDER ORIGIN PUB.PEM [SIZE ROOT]
FOLDER is a copy of the log's folder (sec, ops/2026-11), PUB.PEM the key from the ceremony,
SIZE and ROOT an earlier checkpoint that you kept: the log must begin with it."""
import base64, hashlib, json, pathlib, subprocess, sys, tempfile

def sha(*parts): return hashlib.sha256(b"".join(parts)).digest()
def fail(why): sys.exit(f"FAIL {why}")
def read(*name):
    try: return folder.joinpath(*name).read_bytes()
    except OSError as e: fail(e)
def path(number, width):                    # 1234067 is x001/x234/067; 5 of 256 end in .p/5
    groups, rest = [f"{number % 1000:03}"], number // 1000
    while rest: groups, rest = [f"x{rest % 1000:03}"] + groups, rest // 1000
    return "/".join(groups) + (f".p/{width}" if width < 256 else "")

def root(hashes):                           # RFC 6962, section 2.1
    if len(hashes) < 2: return hashes[0] if hashes else sha()
    half = 1 << (len(hashes) - 1).bit_length() - 1
    return sha(b"\1", root(hashes[:half]), root(hashes[half:]))
def compare(level, number, hashes):         # the tile's file says what the records say
    if read("tile", str(level), path(number, len(hashes))) != b"".join(hashes): fail(f"tile {level}/{number}")
def add(level, one):                        # to the last tile of a level; a full one is one hash above
    if level == len(tiles): tiles.append((0, []))
    number, hashes = tiles[level][0], tiles[level][1] + [one]
    tiles[level] = (number, hashes) if len(hashes) < 256 else (number + 1, [])
    if len(hashes) == 256: compare(level, number, hashes), add(level + 1, root(hashes))

def present():                              # root of the records so far, from the lowest tile up
    last = []
    for _, hashes in tiles: last = [root(hashes + last)] if hashes + last else []
    return base64.b64encode(root(last)).decode()

folder, origin, pem, tiles, wanted, count = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3], [], {}, 0
body, _, signatures = read("checkpoint").partition(b"\n\n")
name, size, claimed = body.decode().split("\n")
for n, r in (size, claimed), (sys.argv[4:6] or (size, claimed)): wanted.setdefault(int(n), set()).add(r)
with tempfile.TemporaryDirectory() as tmp:  # a signature line ends in base64: 4 bytes of key id, the signature
    text, sig, good = f"{tmp}/body", f"{tmp}/sig", False
    pathlib.Path(text).write_bytes(body + b"\n")
    for line in [s for s in signatures.decode().splitlines() if s.startswith(f"\u2014 {origin} ")]:
        pathlib.Path(sig).write_bytes(base64.b64decode(line.split(" ")[2])[4:])
        for how in (f"pkeyutl -verify -pubin -rawin -in {text} -sigfile {sig} -inkey", f"dgst -sha256 -signature {sig} -verify"):
            tried = ["openssl", *how.split(), pem] + ([text] if how[0] == "d" else [])
            good = good or subprocess.run(tried, capture_output=True).returncode == 0
if name != origin or not good: fail("checkpoint: of another log, or not signed by the key")
for number in range((int(size) + 255) // 256):
    width, at = min(256, int(size) - 256 * number), 0
    bundle = read("tile", "entries", path(number, width))
    for _ in range(width):
        if count in wanted and wanted.pop(count) != {present()}: fail(f"another root at size {count}")
        record = bundle[at + 2:at + 2 + int.from_bytes(bundle[at:at + 2], "big")]
        at, count = at + 2 + int.from_bytes(bundle[at:at + 2], "big"), count + 1
        if at > len(bundle) or json.loads(record)["seq"] != count - 1: fail(f"record {count - 1}")
        add(0, sha(b"\0", record))
    if at != len(bundle): fail(f"surplus bytes behind record {count - 1}")
for level, (number, hashes) in enumerate(tiles): hashes and compare(level, number, hashes)
if wanted.pop(count, {}) != {present()} or wanted: fail("another root, or fewer records than there were")
print(f"OK {origin} size={size} root={claimed}")
