#!/bin/sh
# Tests of the app, run in a container of its own image. Usage: test.sh VERSION
set -eu
version=$1
failed=0

check() { # NAME COMMAND...
    name=$1
    shift
    if "$@"; then
        echo "ok   $name"
    else
        echo "FAIL $name"
        failed=1
    fi
}

check "the image knows its version" grep -qx "voyage $version" /app/version
check "the server can be run" test -x /app/serve.sh

/app/serve.sh > /tmp.log 2>&1 &
server=$!
sleep 0.5
check "the page names version and host" \
    sh -c "wget -q -O - http://127.0.0.1:8080/ | grep -qx 'voyage $version, answered by $(hostname)'"
if [ "$version" != bad ]; then
    check "it is healthy" wget -q -O /dev/null http://127.0.0.1:8080/healthz
fi
kill "$server"
wait "$server" || true
check "it wrote to its volume" grep -q "$(hostname) started" /data/starts

exit "$failed"
