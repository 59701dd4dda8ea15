#!/usr/bin/env bash
# Draws docs/images/cli-NAME.svg: commands of the plugin on a terminal of 120 columns. bin/demo runs
# this script on its cluster. It needs Linux. "pictures.sh demo" draws
# docs/images/demo.svg instead, from the output of the demo on standard input.
set -euo pipefail
images=$PWD/docs/images
freeze=$PWD/bin/freeze

# picture NAME draws the commands of standard input, one a line, with what they print.
picture() {
  local command
  while IFS= read -r command; do
    printf '\033[32m$\033[0m \033[1m%s\033[0m\n' "$command"
    "$work/terminal" "$command" < /dev/null
    echo
  done | one_bar | draw "$images/cli-$1.svg"
}

# one_bar keeps one state of a progress bar, in the middle of its run, of all those that a terminal
# draws over each other.
one_bar() {
  sed 's/\r$//' | awk -F'\r' '
    NF <= 1 { print; next }
    {
      n = 0; last = ""
      for (i = 1; i <= NF; i++) {
        if ($i ~ /% \|.*\] ./) states[n++] = $i
        else if ($i !~ /% \|/ && i == NF) last = $i
      }
      if (n) print states[int(n / 2)]
      if (last) print last
    }'
}

draw() {
  "$freeze" --language=ansi --window --padding=24 --border.radius=8 --wrap=120 --background='#0d1117' \
    --font.family='ui-monospace, SF Mono, Menlo, Consolas, DejaVu Sans Mono, monospace' --output="$1" > /dev/null
}

if [ "${1:-}" = demo ]; then
  sed -e '/--- kubectl apply/,/^$/c[...]' -e '/^ *[0-9.]*s  [a-z-]*$/d' -e '/^ *[0-9.]*s  .* Submitt\(ing\|ed\)$/d' \
    -e '/--- kubectl get/,/^$/d' -e '/--- A task that succeeded/,/^$/d' -e '/^targets: /,/^failedTargets:/c[...]' \
    -e '/--- What EdgeOne saw/,/^$/c[...]' |
    { printf '\033[32m$\033[0m \033[1mmake demo\033[0m\n'; cat; } | draw "$images/demo.svg"
  exit
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^appVersion: "\?\([^"]*\)"\?$/\1/p' charts/teo-prefetch-operator/Chart.yaml)
go build -ldflags="-X main.version=$version" -o "$work/kubectl-teo_prefetch" ./cmd/kubectl-teo_prefetch
go build -o "$work/terminal" ./hack/demo/terminal
PATH=$work:$PATH
sed 's/launch/spring/' hack/demo/launch.txt > "$work/spring.txt"
cd "$work"

picture plan << 'COMMANDS'
kubectl teo-prefetch submit spring.txt --zone=zone-2x9examplea --account=store --dry-run=client -o yaml > spring.yaml
kubectl teo-prefetch plan spring.yaml
COMMANDS
picture submit << 'COMMANDS'
kubectl teo-prefetch submit spring.txt --zone=zone-2x9examplea --revision=1.4.0
kubectl teo-prefetch submit spring.txt --zone=zone-2x9examplea --revision=1.4.1 --wait
COMMANDS
picture wait << 'COMMANDS'
kubectl teo-prefetch rerun spring --revision=1.4.2 --yes
kubectl teo-prefetch wait some-bad-urls spring --timeout=45m
kubectl teo-prefetch failed some-bad-urls
kubectl teo-prefetch failed some-bad-urls -o urls
COMMANDS
picture why << 'COMMANDS'
kubectl teo-prefetch why over-quota
kubectl teo-prefetch why some-bad-urls
COMMANDS
picture verify << 'COMMANDS'
kubectl teo-prefetch verify launch
COMMANDS
picture act << 'COMMANDS'
kubectl teo-prefetch retry some-bad-urls
kubectl teo-prefetch rerun launch --revision=1.4.1
kubectl teo-prefetch suspend over-quota
kubectl teo-prefetch resume over-quota
COMMANDS
picture quota << 'COMMANDS'
kubectl teo-prefetch quota
COMMANDS
picture version << 'COMMANDS'
kubectl teo-prefetch version --client
kubectl teo-prefetch --help
COMMANDS
