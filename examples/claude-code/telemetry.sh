#!/usr/bin/env bash
# Claude Code reports its requests to tierwise; nothing stands before it, and nothing is routed.
set -eu
told=$(mktemp)
tierwise dashboard --no-open --port 0 --json > "$told" &
receiver=$!
trap 'kill "$receiver"; rm "$told"' EXIT
url=
while [ -z "$url" ]; do
    kill -0 "$receiver" # ends here where it could not start
    sleep 0.1
    url=$(sed -n 's|.*"url": "\(.*\)/dashboard/".*|\1|p' "$told")
done

unset DISABLE_TELEMETRY # would switch it off
export CLAUDE_CODE_ENABLE_TELEMETRY=1 OTEL_LOGS_EXPORTER=otlp OTEL_RESOURCE_ATTRIBUTES=project=example
export OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf OTEL_EXPORTER_OTLP_ENDPOINT="$url"
claude -p "Summarise README.md in one line" --allowedTools Read

tierwise report
