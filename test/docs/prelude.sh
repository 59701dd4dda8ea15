# What a page's commands run with: their script reads this first. A command that fails ends
# the page with its line, as the commands stand in the lines that they have there.
set -euo pipefail
trap 'echo "$PAGE:$LINENO: failed: $BASH_COMMAND" >&2' ERR

# Whether there is such a target, and whether its commands can be told; what they do
# other tests know.
make() { command make --no-print-directory --dry-run "$@" > /dev/null || return $?; }

# Pods seem to run here, and have no logs. The only repository of charts is Flagger's, as a folder.
helm() {
  [ "$1" != repo ] || return 0
  local arguments=() argument
  for argument; do
    case $argument in
      --logs) ;;
      flagger/*) arguments+=("$FLAGGER_CHARTS/${argument#flagger/}") ;;
      *) arguments+=("$argument") ;;
    esac
  done
  command helm "${arguments[@]}" || return $?
}

# as_account NAME COMMAND runs a command with the permissions of a ServiceAccount.
as_account() {
  local file="$PWD/.kubeconfig-$1"
  cp "$KUBECONFIG" "$file" && kubectl --kubeconfig="$file" config set-credentials test-cluster --token="$(kubectl create token "$1")" > /dev/null || return $?
  KUBECONFIG="$file" "${@:2}" || return $?
}

# The image has the plugin of the test.
docker() {
  case $1 in
    create) echo container ;;
    cp) [ "$2" = container:/kubectl-teo_prefetch ] && cp "$PLUGIN" "$3" || return $? ;;
    rm) [ "$2" = container ] || return $? ;;
    *) return 1 ;;
  esac
}
export -f docker

# A repository's secret is a file: see run_step.
gh() {
  [ "$1 $2" = "secret set" ] && cat > ".secret-$3" || return $?
}

# run_step FILE NAME=VALUE... runs a step of a GitHub workflow, without the permissions of the page.
run_step() {
  export RUNNER_TEMP="$PWD/.runner" GITHUB_PATH="$PWD/.runner-path" GITHUB_SHA=d670460b4b4aece5915caf5c68d12f560a9fe3e4
  mkdir -p "$RUNNER_TEMP" && touch "$GITHUB_PATH" || return $?
  env -u KUBECONFIG PATH="$(tr '\n' : < "$GITHUB_PATH")$PATH" "${@:2}" bash -e "$1" || return $?
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
