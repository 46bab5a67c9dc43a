#!/usr/bin/env bash
# Builds a real kube-apiserver and fetches etcd: .kube/kube-apiserver and .kube/etcd.
#
# Both come from Debian 12 and its signed package lists: etcd as a package, the API server (1.20.2) from the source
# package `kubernetes`, which Debian itself builds kubectl from. Nothing is installed, no root is needed. It takes about 8
# minutes of one core, 130 MB of download and 1 GB of disk. Running this again does nothing.
set -euo pipefail

readonly VERSION='1.20.5+really1.20.2-1.1+deb12u1'

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readonly ROOT
readonly DIR=$ROOT/.kube
readonly STAMP=$DIR/version
readonly MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}

say() { printf 'kube: %s\n' "$*" >&2; }

fail() {
  say "$1"
  exit 1
}

if [[ -x $DIR/kube-apiserver && -x $DIR/etcd && -f $STAMP && $(<"$STAMP") == "$VERSION" ]]; then
  exit 0
fi

for tool in apt-get dpkg-deb dpkg-source jq make; do
  command -v "$tool" >/dev/null || fail "\"$tool\" not found; on Debian: apt install dpkg-dev jq make"
done

mkdir -p "$DIR/apt/lists/partial" "$DIR/apt/archives/partial" "$DIR/dl" "$DIR/tools"
exec 9>"$DIR/lock"
if command -v flock >/dev/null; then
  flock -n 9 || fail "another build is under way in \"$DIR\""
fi

# Lists of our own, beside those of the system.
printf 'deb %s bookworm main\ndeb-src %s bookworm main\ndeb-src %s bookworm-security main\n' \
  "$MIRROR" "$MIRROR" "${MIRROR/%debian/debian-security}" >"$DIR/apt/sources.list"
apt() {
  apt-get -q -o Dir::Etc::SourceList="$DIR/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State::Lists="$DIR/apt/lists" -o Dir::Cache="$DIR/apt" -o APT::Sandbox::User= "$@"
}

say 'fetching package lists, the source, etcd and a Go compiler'
{
  apt update
  cd "$DIR/dl"
  apt source --download-only "kubernetes=$VERSION"
  apt download golang-1.19-go golang-1.19-src rsync libpopt0 libxxhash0 etcd-server golang-github-modern-go-reflect2-dev
} >"$DIR/fetch.log" 2>&1 || {
  tail -n 20 "$DIR/fetch.log" >&2
  fail 'fetching failed; the whole output is in .kube/fetch.log'
}
for package in "$DIR"/dl/*.deb; do
  dpkg-deb -x "$package" "$DIR/tools"
done
cp "$DIR/tools/usr/bin/etcd" "$DIR/etcd"

readonly tree=$DIR/source
if [[ ! -d $tree ]]; then
  say 'unpacking the source'
  rm -rf "$tree.part"
  dpkg-source --no-check -x "$DIR"/dl/kubernetes_*.dsc "$tree.part" >"$DIR/unpack.log" 2>&1 ||
    fail 'the source cannot be unpacked; see .kube/unpack.log'
  # The one in the tree crashes with this compiler: it is of before Go 1.18.
  reflect2=vendor/github.com/modern-go/reflect2
  rm -rf "${tree:?}.part/$reflect2"
  cp -r "$DIR/tools/usr/share/gocode/src/github.com/modern-go/reflect2" "$tree.part/$reflect2"
  mkdir -p "$tree.part/.go/src/k8s.io"
  ln -s ../../.. "$tree.part/.go/src/k8s.io/kubernetes"
  mv "$tree.part" "$tree"
fi

say 'building kube-apiserver (about 8 minutes of one core; output in .kube/build.log)'
export GOPATH=$tree/.go GOROOT=$DIR/tools/usr/lib/go-1.19 GOCACHE=$DIR/cache CGO_ENABLED=0 GOPROXY=off
export PATH=$GOROOT/bin:$DIR/tools/usr/bin:$PATH
export LD_LIBRARY_PATH=$DIR/tools/usr/lib/x86_64-linux-gnu:$DIR/tools/lib/x86_64-linux-gnu
(
  cd "$tree/.go/src/k8s.io/kubernetes"
  # What an interrupted build left looks like what is needed.
  rm -rf _output
  nice make WHAT=cmd/kube-apiserver GOFLAGS=-tags=providerless GOLDFLAGS='-s -w'
) >"$DIR/build.log" 2>&1 || {
  tail -n 20 "$DIR/build.log" >&2
  fail 'the build failed; the whole output is in .kube/build.log'
}
cp "$tree/_output/local/bin/linux/amd64/kube-apiserver" "$DIR/kube-apiserver.part"
mv -f "$DIR/kube-apiserver.part" "$DIR/kube-apiserver"
"$DIR/kube-apiserver" --version >/dev/null 2>&1 || fail 'the built server does not run here'
printf '%s\n' "$VERSION" >"$STAMP"
say 'kube-apiserver and etcd are in .kube'
