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
flags=
# As the agent starts its guard: in real time V8's helper threads would not get a turn on a single processor.
if [ "${1-}" = guard ]; then flags='--optimize-for-size --single-threaded-gc'; fi
# shellcheck disable=SC2086 # each word is a flag
exec /usr/lib/outrider-edge/bin/node $flags /usr/lib/outrider-edge/node_modules/@outrider/edge-agent/dist/src/cli.js "$@"
