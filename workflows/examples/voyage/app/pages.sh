#!/bin/sh
# Makes the pages that do not depend on the machine. Usage: pages.sh VERSION FOLDER
set -eu
version=$1 folder=$2

# A health page is what tells a good version from a bad one.
if [ "$version" != bad ]; then
    echo ok > "$folder/healthz"
fi
