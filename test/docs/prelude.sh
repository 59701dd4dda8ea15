# What a page's commands run with: their script reads this first. A command that fails ends
# the page with its line, as the commands stand in the lines that they have there.
set -euo pipefail
trap 'echo "$PAGE:$LINENO: failed: $BASH_COMMAND" >&2' ERR

# Whether there is such a target, and whether its commands can be told; what they do
# other tests know.
make() { command make --no-print-directory --dry-run "$@" > /dev/null || return $?; }

# Pods seem to run here, and have no logs.
helm() {
  local arguments=() argument
  for argument; do [ "$argument" = --logs ] || arguments+=("$argument"); done
  command helm "${arguments[@]}" || return $?
}

bin/manager() { command bin/manager "$@" --teo-endpoint="$EDGEONE" || return $?; }

# For "before" comments of pages that begin without an operator.
install_operator() {
  helm install teo-prefetch-operator charts/teo-prefetch-operator \
    --set image.repository=registry.example/teo-prefetch-operator \
    --namespace teo-prefetch-system --create-namespace --wait > /dev/null || return $?
}

remove_operator() {
  helm uninstall teo-prefetch-operator --namespace teo-prefetch-system --wait --ignore-not-found || return $?
  kubectl -n teo-prefetch-system delete secret teo-credentials --ignore-not-found || return $?
  kubectl delete crd prefetchtasks.teo.prefetch-operator.io edgeoneaccounts.teo.prefetch-operator.io --ignore-not-found || return $?
}
