#!/bin/sh
# idle.sh [ECHOBENCH]: prints the CPU time per line of 50 busy connections, with more and more idle ones, as a table
# and a chart. Each number is the median of five rounds. It needs about 10,000 descriptors (ulimit -n).
set -eu
bench=${1:-$(dirname "$0")/../../build/tests/echobench}
counts="0 1000 2000 4000 6000 9000"
results=$(mktemp)
trap 'rm -f "$results"' EXIT
for round in 1 2 3 4 5; do
  for idle in $counts; do
    line=$("$bench" -c 50 -b 64 -i "$idle" -s 2)
    case $line in
      *"CPU us/line "*) echo "$idle ${line##* }" >>"$results" ;;
      *) echo "idle.sh: echobench cannot read the CPU time on this system" >&2; exit 1 ;;
    esac
  done
done
median() { # IDLE CONNECTIONS
  awk -v idle="$1" '$1 == idle { print $2 }' "$results" | sort -n | awk 'NR == 3 { printf "%.2f", $1 }'
}
values=
echo "| idle connections | server CPU, us per line |"
echo "| ---: | ---: |"
for idle in $counts; do
  echo "| $idle | $(median "$idle") |"
  values="$values${values:+, }$(median "$idle")"
done
cat <<CHART

\`\`\`mermaid
xychart-beta
    title "server CPU per line, in microseconds, of 50 busy connections"
    x-axis "idle connections" [$(echo "$counts" | sed 's/ /, /g')]
    y-axis "us" 0 --> 10
    line [$values]
\`\`\`
CHART
