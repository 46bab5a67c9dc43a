#!/usr/bin/env bash
# Builds the image with buildah and looks at what came out. With BINARY=FILE, a static program, nothing is compiled or pulled.
# BUILD_FLAGS are handed to buildah, such as --pull-always, or --volume for a certificate authority of your own.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
name=${IMAGE:-localhost/fairlead:0.1.0}
command -v buildah >/dev/null || { echo 'buildah is not installed' >&2; exit 1; }
read -ra more <<<"${BUILD_FLAGS:-}"
flags=(--layers --isolation "${BUILDAH_ISOLATION:-chroot}" --file deploy/Dockerfile --tag "$name" "${more[@]}")
if [[ -n ${BINARY:-} ]]; then
  ldd "$BINARY" 2>&1 | grep -qE 'statically linked|not a dynamic' || { echo "'$BINARY' is not static" >&2; exit 1; }
  stage=$(mktemp -d)
  trap 'rm -rf "$stage"' EXIT
  install -D -s "$BINARY" "$stage/out/fairlead"
  flags+=(--build-context "build=$stage")
fi
buildah bud "${flags[@]}" .
config=$(buildah inspect --type image --format '{{.OCIv1.Config.User}} {{.OCIv1.Config.Entrypoint}} {{.OCIv1.Config.Cmd}}' "$name")
[[ $config == '65532:65532 [/fairlead] [serve]' ]] || { echo "the image is not as it should be: $config" >&2; exit 1; }
container=$(buildah from "$name")
buildah run --isolation "${BUILDAH_ISOLATION:-chroot}" "$container" -- /fairlead --version
buildah rm "$container" >/dev/null
echo "$name"
