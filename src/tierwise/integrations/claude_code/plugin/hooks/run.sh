#!/bin/sh
# Runs a script of this folder with the Python that tierwise was installed with, or any other: it needs no package.
# Whatever goes wrong, it says nothing and ends with 0: a session must not notice.
here=${0%/*}
python=python3
[ -r "$here/python" ] && read -r python <"$here/python"
script=$1
shift
"$python" -I -S "$here/$script" "$@" 2>/dev/null
exit 0
