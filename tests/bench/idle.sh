#!/bin/sh
# idle.sh [ECHOBENCH]: CPU per line of 50 busy connections among more and more idle ones, medians of five rounds, as a table
# and as the chart for README. Needs some 10,000 descriptors (ulimit -n).
set -eu
bench=${1:-build/tests/bench/echobench}
counts="0 1000 2000 4000 6000 9000"
results=$(mktemp)
trap 'rm -f "$results"' EXIT
for round in 1 2 3 4 5; do
  for idle in $counts; do
    "$bench" -c 50 -b 64 -i "$idle" -s 2 | awk -v idle="$idle" '{ print idle, $2, $NF }' >>"$results"
  done
done
median() { # COUNT COLUMN
  awk -v idle="$1" -v column="$2" '$1 == idle { print $column }' "$results" | sort -n | sed -n 3p
}
values=
echo "| idle connections | lines/s | server CPU, us per line |"
echo "| ---: | ---: | ---: |"
for idle in $counts; do
  echo "| $idle | $(median "$idle" 2) | $(median "$idle" 3) |"
  values="$values${values:+, }$(median "$idle" 3)"
done
cat <<CHART

\`\`\`mermaid
xychart-beta
    title "server CPU per line, in microseconds, of 50 busy connections"
    x-axis "idle connections besides" [$(echo "$counts" | sed 's/ /, /g')]
    y-axis "us" 0 --> 10
    line [$values]
\`\`\`
CHART
