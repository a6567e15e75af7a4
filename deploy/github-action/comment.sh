#!/usr/bin/env bash
# The action's one step: installs tierwise out of the action's own repository, and runs `tierwise comment`.
set -euo pipefail
# The working directory holds what the pull request brings: no module is ever taken from there.
export PYTHONSAFEPATH=1

home="${RUNNER_TEMP:?this is a step of GitHub Actions}/tierwise"
tierwise="${TIERWISE_PROGRAM:-$home/bin/tierwise}"
if [ ! -x "$tierwise" ]; then
  root="$GITHUB_ACTION_PATH/../.."
  python3 -I -m venv "$home"
  "$home/bin/pip" install --quiet --disable-pip-version-check --constraint "$root/requirements/core.txt" "$root"
fi

options=(--json --source "$SOURCE")
while IFS= read -r file; do
  if [ -n "$file" ]; then options+=(--execution-file "$file"); fi
done <<<"$EXECUTION_FILES"
if [ -n "$PULL_REQUEST" ]; then options+=(--pr "$PULL_REQUEST"); fi
if [ -n "$AUTHOR" ]; then options+=(--author "$AUTHOR"); fi

result="$("$tierwise" comment "${options[@]}")"
printf '%s\n' "$result"
# One line: the delimiter of several lines would have to be one that does not occur.
printf 'result=%s\n' "$(tr -d '\n' <<<"$result")" >>"$GITHUB_OUTPUT"
