#!/bin/sh
# Serves the app's pages on port 8080 until SIGTERM.
set -eu
cd /app

echo "$(cat version), answered by $(hostname)" > www/index.html
mkdir -p /data
echo "$(hostname) started $(cat version)" >> /data/starts

httpd -f -p 8080 -h www &
server=$!

# A load balancer may still send a request or two after it was told that we leave; they are answered.
leave() {
    echo "leaving"
    sleep 1
    kill "$server"
    exit 0
}
trap leave TERM INT

echo "$(cat version) on $(hostname) listens on port 8080"
wait "$server"
