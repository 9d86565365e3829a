#!/bin/sh
# outrider-edge with the Node that it was built and tested with.
set -e
case "${1-}" in
  run | guard | doctor)
    # Also for root: what they write must belong to the service user, and what that user may do is what counts.
    if [ "$(id -u)" = 0 ]; then
      exec setpriv --reuid outrider --regid outrider --init-groups "$0" "$@"
    fi
    ;;
esac
exec /usr/lib/outrider-edge/bin/node /usr/lib/outrider-edge/node_modules/@outrider/edge-agent/dist/src/cli.js "$@"
