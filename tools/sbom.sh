#!/usr/bin/env bash
# Writes what is linked into the program (CycloneDX, JSON): its crates as Cargo.lock has them, without those of tests, of the
# lab and of the compilation. Usage: tools/sbom.sh FILE
set -euo pipefail
file=$(realpath -m "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cargo=${CARGO:-cargo}
version=0.5.9
tool=$PWD/.cyclonedx/bin/cargo-cyclonedx
if [[ $("$tool" cyclonedx --version 2>/dev/null) != *" $version" ]]; then
  "$cargo" install --locked --quiet --root .cyclonedx "cargo-cyclonedx@$version"
fi
# One file beside each Cargo.toml of the workspace, with crates that only another member or a test switches on.
trap 'rm -f sbom-draft.json tests/support/sbom-draft.json' EXIT
"$tool" cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --override-filename sbom-draft
linked=$("$cargo" tree --locked --package fairlead --edges normal,no-proc-macro --prefix none --format '{p}')
mkdir -p "$(dirname "$file")"
LINKED=$linked python3 - "$file" <<'PYTHON'
import json, os, sys
linked = {tuple(line.split()[:2]) for line in os.environ["LINKED"].splitlines()}
# This folder's path on this machine is nobody's business.
bom = json.loads(open("sbom-draft.json").read().replace(f"path+file://{os.getcwd()}#", ""))
out = {part["bom-ref"] for part in bom["components"] if (part["name"], "v" + part["version"]) not in linked}
bom["components"] = [part for part in bom["components"] if part["bom-ref"] not in out]
for entry in bom["dependencies"]:
    entry["dependsOn"] = [ref for ref in entry.get("dependsOn", []) if ref not in out]
bom["dependencies"] = [entry for entry in bom["dependencies"] if entry["ref"] not in out]
names = [part["name"] for part in bom["components"]]
assert len(names) == len(linked) - 1 and "tonic" in names and "proptest" not in names, "the list is not what is linked"
json.dump(bom, open(sys.argv[1], "w"), indent=1)
print(f"{sys.argv[1]}: {len(names)} crates")
PYTHON
