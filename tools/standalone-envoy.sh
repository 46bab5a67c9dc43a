#!/usr/bin/env bash
# Makes the Envoy configuration of deploy/overlays/standalone from envoy/quickstart.yaml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
{
  printf '# envoy/quickstart.yaml with the pod'\''s addresses and paths: made by tools/standalone-envoy.sh, a test compares.\n\n'
  sed -n '/^node:/,$p' envoy/quickstart.yaml | sed -e 's#run/ext_proc.sock#/run/fairlead/ext_proc.sock#; s#run/eds#/run/fairlead/eds#g' \
    -e 's#address: 127.0.0.1, port_value: 10000#address: 0.0.0.0, port_value: 10000#'
} > deploy/overlays/standalone/envoy.yaml
