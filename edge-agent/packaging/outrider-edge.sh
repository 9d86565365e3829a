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
# What runs for months: little garbage at a time, no helpers to collect so little, and one heap for all threads of the C
# library. The guard's flags are those that the agent starts one with: in real time V8's helper threads would not get a
# turn on a single processor.
flags=
case "${1-}" in
  run) flags='--semi-space-growth-factor=1 --no-parallel-scavenge' ;;
  guard) flags='--single-threaded-gc --min-semi-space-size=4 --max-semi-space-size=4' ;;
esac
[ -z "$flags" ] || export MALLOC_ARENA_MAX=1
# shellcheck disable=SC2086 # each word is a flag
exec /usr/lib/outrider-edge/bin/node $flags /usr/lib/outrider-edge/node_modules/@outrider/edge-agent/dist/src/cli.js "$@"
