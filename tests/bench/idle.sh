#!/bin/sh
# idle.sh [ECHOBENCH]: CPU per line of 50 busy connections among more and more idle ones, the median of five runs each;
# as a table, and as the chart for README. Raise the limit of descriptors before, if it is low: ulimit -n.
set -eu
bench=${1:-build/tests/echobench}
counts="0 1000 2000 4000 6000 9000"
values=
echo "| idle connections | lines/s | server CPU, us per line |"
echo "| ---: | ---: | ---: |"
for idle in $counts; do
  median=$(for run in 1 2 3 4 5; do "$bench" -c 50 -b 64 -i "$idle" -s 2; done | sort -k 16 -n | sed -n 3p)
  lines=$(echo "$median" | awk '{ print $2 }')
  cpu=$(echo "$median" | awk '{ print $NF }')
  echo "| $idle | $lines | $cpu |"
  values="$values${values:+, }$cpu"
done
cat <<CHART

\`\`\`mermaid
xychart-beta
    title "server CPU per line, in microseconds, of 50 busy connections"
    x-axis "idle connections besides" [$(echo $counts | sed 's/ /, /g')]
    y-axis "us" 0 --> 10
    line [$values]
\`\`\`
CHART
