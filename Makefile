# The commands of this repository. `make` without arguments lists them.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules --no-print-directory

IMAGE := ghcr.io/prefetch-operator/teo-prefetch-operator
# Everything except the race detector uses the same settings, so that packages are compiled
# only once for tests, tools and the image. The image must not contain the path of the build
# folder, hence -trimpath.
export CGO_ENABLED := 0
export GOFLAGS := $(filter-out -trimpath,$(shell go env GOFLAGS 2> /dev/null)) -trimpath
# -count=1 disables the cache of test results, which ignores files outside a module.
TEST := go test -count=1 -timeout=25m
# The operator's own packages are tested again with the race detector if gcc is installed,
# because the race detector needs a C compiler. The histories skip these runs, because they
# take ten times as long.
RACE ?= $(if $(shell command -v gcc),-race)
KUBECTL ?= $(or $(shell command -v kubectl),bin/k8s/kubectl)
# The modules of this repository: the operator's, and those of tools and of some tests.
MODULES = $(patsubst ./%/,%,$(sort $(dir $(shell find . \( -name node_modules -o -path ./bin -o -name '.?*' \) -prune -o -name go.mod -print))))
# Folders with own code in other modules than the operator's. One folder is missing:
# test/bench/baseline/crossplane takes minutes to compile for the first time, so only
# `make bench` vets it.
OWN_FOLDERS := test/conformance hack/image test/bench/baseline/edgeone test/bench/baseline/script test/bench/baseline/kubebuilder

# The version of a module in go.mod: $(call version,FOLDER,MODULE)
version = $(shell awk '$$1 == "$(2)" && $$2 ~ /^v/ { print $$2 }' $(1)/go.mod)
K8S_VERSION := $(call version,hack/kubernetes,k8s.io/kubernetes)
HELM_VERSION := $(call version,hack/tools,helm.sh/helm/v4)
KWOK_VERSION := $(call version,hack/kubernetes,sigs.k8s.io/kwok)
PROMETHEUS_VERSION := $(call version,hack/prometheus,github.com/prometheus/prometheus)
KUBE_STATE_METRICS_VERSION := $(call version,hack/kubestatemetrics,k8s.io/kube-state-metrics/v2)
KREW_VERSION := $(call version,hack/tools,sigs.k8s.io/krew)
ETCD_VERSION := $(call version,hack/tools,go.etcd.io/etcd/server/v3)
GOLANGCI_LINT_VERSION := $(call version,hack/tools,github.com/golangci/golangci-lint/v2)

##@ Everyday

.PHONY: help
help: ## List these commands
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: prerequisites ## Build bin/manager and bin/simulator
	@echo "Building bin/manager and bin/simulator (about 2 minutes the first time)…"
	go build -o bin/manager ./cmd/manager
	go build -o bin/simulator ./cmd/simulator

.PHONY: test
test: verify-generated lint test-chart build control-plane cluster-tools $(addprefix dist/linux-$(shell go env GOARCH)/,manager kubectl-teo_prefetch) dist/windows-amd64/kubectl-teo_prefetch bin/image bin/krew bin/validate-krew-manifest ## Test everything: unit tests, the manager on a real API server, generated files, lint
	$(TEST) ./...
	cd test/conformance && $(TEST) ./...
	cd hack/image && $(TEST) ./...
	$(if $(RACE),CGO_ENABLED=1 $(TEST) -race ./cmd/... ./internal/...)
	$(MAKE) fuzz FUZZ=./internal/teo FUZZ_TIME=2000x
	$(MAKE) chaos CHAOS_DURATION=100s CHAOS_SEED=17

.PHONY: test-unit
test-unit: prerequisites ## Test what needs no API server (seconds)
	$(TEST) -short ./...

.PHONY: test-chart
test-chart: prerequisites bin/helm bin/helm-unittest ## Test the Helm chart: lint, schema and every template (seconds)
	bin/helm lint --strict --quiet --set=image.repository=$(IMAGE) $(CHART)
	bin/helm-unittest --strict $(CHART)

.PHONY: test-node
test-node: prerequisites ## Test the simulator against the vendor's Node.js SDK (needs Node.js)
	@command -v npm > /dev/null || { echo "npm is missing: install Node.js 18 or later to run the vendor's Node.js SDK."; exit 1; }
	go build -o bin/simulator ./cmd/simulator
	cd test/node && npm ci --no-audit --no-fund --loglevel=error && npm test

.PHONY: demo
demo: build control-plane ## Show the operator at work on this machine: API server, simulated EdgeOne, tasks
	@go build -o bin/demo ./hack/demo
	@bin/demo # not go run, which exits with 1 after Ctrl-C

.PHONY: smoke
smoke: prerequisites ## Prefetch one URL with your account and measure what docs/edgeone.md assumes; ZONE, URL (costs 1 URL of the quota), ENDPOINT, TIMEOUT
	@go build -o bin/smoke ./test/smoke
	@bin/smoke -zone="$${ZONE:-}" -url="$${URL:-}" -endpoint="$${ENDPOINT:-}" $(if $(TIMEOUT),-timeout="$${TIMEOUT}")

BENCH_SCALE ?= 1
.PHONY: bench
bench: prerequisites control-plane ## Measure the operator and today's alternatives (an hour), for docs/benchmarks.md; BENCH_RUN selects scenarios, BENCH_SCALE=0.05 is a quick try
	@echo "Vetting the Crossplane baseline (about 4 minutes the first time)…"
	cd test/bench/baseline/crossplane && go vet ./...
	go run ./test/bench -run='$(BENCH_RUN)' -scale=$(BENCH_SCALE)

.PHONY: fmt
fmt: bin/golangci-lint ## Format the Go code
	bin/golangci-lint fmt

.PHONY: lint
lint: bin/golangci-lint ## Lint the Go code
	@echo "Linting the Go code (about 3 minutes the first time)…"
	bin/golangci-lint run ./...
	for folder in $(OWN_FOLDERS); do (cd $$folder && $(CURDIR)/bin/golangci-lint run --config $(CURDIR)/.golangci.yml ./...); done

##@ Proofs of the guarantees (docs/guarantees.md)

CHAOS_DURATION ?= 10m
CHAOS_SEED ?= 0
.PHONY: chaos
chaos: build control-plane ## Inject all faults at once and count duplicates and losses; CHAOS_DURATION (10m), CHAOS_SEED
	go run ./test/chaos -duration=$(CHAOS_DURATION) -seed=$(CHAOS_SEED)

HISTORIES ?= 10000
.PHONY: histories
histories: prerequisites ## Run the controllers through random histories of faults in virtual time; HISTORIES (10000)
	go test -count=1 -timeout=3h -v -run='^TestHistories$$' ./internal/controller -args -histories=$(HISTORIES)

.PHONY: model
model: prerequisites ## Check every order of the protocol's steps and faults, including the large environments (about half an hour)
	go test -count=1 -timeout=3h -v ./test/model -args -exhaustive

# FUZZ_TIME is the duration of each fuzz target, and FUZZ has the packages. Every test run
# includes the seeds.
FUZZ_TIME ?= 2m
FUZZ ?= ./...
.PHONY: fuzz
fuzz: prerequisites ## Fuzz the code that reads external input, each target for FUZZ_TIME (2m, or 2000x)
	@go test -list='^Fuzz' $(FUZZ) | awk '/^Fuzz/ { found[n++] = $$1 } $$1 == "ok" { while (n > 0) print $$2, found[--n] }' | \
	while read -r package target; do \
	  echo "$$target in $$package"; \
	  go test -run='^$$' -fuzz="^$$target$$" -fuzztime=$(FUZZ_TIME) "$$package" || exit 1; \
	done

.PHONY: measure
measure: prerequisites ## Print the size and shape of the shipped code (packages, files, functions, names, mutexes), and the size of hack/
	go run ./test/measure

.PHONY: mutations
mutations: prerequisites ## Remove one safeguard at a time and check that a test notices; RUN selects by name or file
	go run ./test/mutations -run='$(RUN)'

.PHONY: dashboard
dashboard: build control-plane bin/prometheus ## Draw the Grafana dashboard of managers under load (4 minutes in total), for docs/monitoring.md
	go run ./test/monitoring/dashboard

##@ Generated files

CONTROLLER_GEN := go tool -modfile=hack/tools/go.mod controller-gen
CHART := charts/teo-prefetch-operator
GENERATED := api/v1alpha1/zz_generated.deepcopy.go config/crd/bases config/rbac/role.yaml $(CHART)/files/crd $(CHART)/files/rbac $(CHART)/files/policy $(CHART)/README.md \
	config/prometheus/prometheusrule.yaml config/prometheus/dashboard.json docs/api.md docs/status.md
# The generate-* macros write below $(1): into this folder, or into another for a comparison.
generate-code = $(CONTROLLER_GEN) object paths=./api/... output:object:dir=$(1)/api/v1alpha1
generate-manifests = $(CONTROLLER_GEN) crd paths=./api/... output:crd:dir=$(1)/config/crd/bases; \
	$(CONTROLLER_GEN) rbac:roleName=teo-prefetch-operator paths=./internal/controller/... output:rbac:dir=$(1)/config/rbac
# The chart's copies of files in config/, and its README from the comments in values.yaml.
generate-chart = mkdir -p $(1)/$(CHART)/files/crd $(1)/$(CHART)/files/rbac $(1)/$(CHART)/files/policy; \
	cp $(1)/config/crd/bases/*.yaml $(1)/$(CHART)/files/crd; \
	cp config/rbac/*_role.yaml $(1)/config/rbac/role.yaml $(1)/$(CHART)/files/rbac; \
	cp config/policy/policy.yaml config/policy/binding.yaml $(1)/$(CHART)/files/policy; \
	bin/helm-docs --chart-search-root=$(CHART) --sort-values-order=file --dry-run --log-level=warning > $(1)/$(CHART)/README.md
# The parts of docs/ that are generated from the comments and markers in api/.
generate-docs = go run ./hack/docs -to=$(1); \
	go tool -modfile=hack/tools/go.mod crd-ref-docs --log-level=ERROR --source-path=api --config=hack/docs/api/config.yaml \
	    --renderer=markdown --templates-dir=hack/docs/api --output-path=$(1)/docs/api.md
# The chart's files for Prometheus and Grafana, for installations with Kustomize.
generate-monitoring = mkdir -p $(1)/config/prometheus; \
	cp $(CHART)/files/dashboard.json $(1)/config/prometheus; \
	{ printf '%s\n' 'apiVersion: monitoring.coreos.com/v1' 'kind: PrometheusRule' 'metadata:' '  name: teo-prefetch-operator' \
	    '  namespace: teo-prefetch-system' '  labels:' '    app.kubernetes.io/name: teo-prefetch-operator' 'spec:'; \
	  sed -e '/^\#/d' -e 's/^/  /' $(CHART)/files/alerts.yaml; } > $(1)/config/prometheus/prometheusrule.yaml

.PHONY: generate
generate: prerequisites ## Generate the Go code of api/
	$(call generate-code,.)

.PHONY: manifests
manifests: prerequisites bin/helm-docs ## Generate the CRD and the ClusterRole in config/ and in the chart, the chart's README, and parts of docs/
	$(call generate-manifests,.)
	$(call generate-chart,.)
	$(call generate-monitoring,.)
	$(call generate-docs,.)
	go test -count=1 -run='^TestThePageOfMetrics' ./internal/controller/submit -args -update

.PHONY: pictures
pictures: build control-plane bin/freeze ## Record the demo and the plugin for docs/images (needs Linux)
	go build -o bin/demo ./hack/demo
	FORCE_COLOR=1 bin/demo hack/demo/pictures.sh 2>&1 | hack/demo/pictures.sh demo

.PHONY: verify
verify: verify-generated lint ## Fail if a generated file or a go.mod is outdated, or if lint finds a problem

# Compares the files and does not write them. Other edits in the work tree have no effect, and
# are kept.
.PHONY: verify-generated
verify-generated: prerequisites bin/helm-docs
	@echo "Comparing generated files and the go.mod of $(words $(MODULES)) modules with what they should be (minutes the first time, as Go downloads all modules)…"
	@want=$$(mktemp -d); trap 'rm -rf "$$want"' EXIT; failed=; \
	$(call generate-code,$$want); $(call generate-manifests,$$want); $(call generate-chart,$$want); $(call generate-monitoring,$$want); $(call generate-docs,$$want); \
	for path in $(GENERATED); do \
	  diff -ruN "$$path" "$$want/$$path" || failed=" make generate manifests;"; \
	done; \
	for module in $(MODULES); do \
	  go -C "$$module" mod tidy -diff || failed="$$failed go -C $$module mod tidy;"; \
	done; \
	if [ -n "$$failed" ]; then echo "Not up to date, as the + and - above show. Run:$${failed%;}"; exit 1; fi

##@ On a cluster (the current context of kubectl)

.PHONY: install
install: kubectl ## Install the CRDs
	$(KUBECTL) apply --server-side -k config/crd

.PHONY: uninstall
uninstall: kubectl ## Remove the CRDs and thus every PrefetchTask and EdgeOneAccount
	$(KUBECTL) delete --ignore-not-found -k config/crd

.PHONY: run
run: build ## Run the manager on this machine, with TENCENTCLOUD_SECRET_ID and TENCENTCLOUD_SECRET_KEY
	@: "$${TENCENTCLOUD_SECRET_ID:?is not set: it and TENCENTCLOUD_SECRET_KEY are the credentials to call EdgeOne with}"
	@: "$${TENCENTCLOUD_SECRET_KEY:?is not set: it and TENCENTCLOUD_SECRET_ID are the credentials to call EdgeOne with}"
	bin/manager --leader-elect=false --metrics-bind-address=0 --health-probe-bind-address=0 $(ARGS)

.PHONY: deploy
deploy: kubectl ## Install everything, with the image IMG
	@: "$${IMG:?is not set: no image is published yet; make image PUSH=registry.example/teo-prefetch-operator pushes one, and IMG names it with its tag}"
	$(KUBECTL) kustomize config/default | sed 's|$(IMAGE):.*|$(IMG)|' | $(KUBECTL) apply --server-side -f -

.PHONY: undeploy
undeploy: kubectl ## Remove everything, including every PrefetchTask
	$(KUBECTL) delete --ignore-not-found -k config/default

##@ Image and release (docs/release.md)

# The folder of the results.
DIST ?= dist
# The name of the tag, or the distance from the last tag; without a tag v0.0.0-g<commit>.
VERSION ?= $(or $(shell git describe --tags --match='v[0-9]*' --dirty 2> /dev/null),v0.0.0-g$(shell git describe --always --exclude='*' --dirty 2> /dev/null))
REVISION ?= $(shell git rev-parse HEAD 2> /dev/null)
# All files in the image and the release get the time of the commit, for reproducible builds.
SOURCE_DATE_EPOCH ?= $(or $(shell git log -1 --format=%ct 2> /dev/null),0)
PLATFORMS ?= linux-amd64 linux-arm64
PLUGIN_PLATFORMS ?= linux-amd64 linux-arm64 darwin-amd64 darwin-arm64 windows-amd64 windows-arm64
BASE ?= scratch

# The programs of the image, also in the Dockerfile, and of the plugin's archives. The same
# source gives the same bytes, independent of the folder, the caches and the machine.
define build-program
@echo "Building $(@F) $(VERSION) for $* (about 2 minutes the first time)…"
GOOS=$(word 1,$(subst -, ,$*)) GOARCH=$(word 2,$(subst -, ,$*)) GOAMD64=v1 GOARM64=v8.0 \
  go build -trimpath -buildvcs=false -ldflags='-s -w -X main.version=$(VERSION)' -o $@ ./cmd/$(@F)
endef
$(DIST)/%/manager: prerequisites
	$(build-program)
$(DIST)/%/kubectl-teo_prefetch: prerequisites
	$(build-program)
IMAGE_PROGRAMS = $(foreach platform,$(PLATFORMS),$(addprefix $(DIST)/$(platform)/,manager kubectl-teo_prefetch))

.PHONY: image
image: bin/image $(IMAGE_PROGRAMS) ## Build the image for amd64 and arm64 into dist/; BASE=image replaces the base scratch, PUSH=registry/name pushes the image
	bin/image -name=$(IMAGE) -version=$(VERSION) -revision=$(REVISION) -created=$(SOURCE_DATE_EPOCH) -base=$(BASE) -out=$(DIST) -push=$(PUSH) \
	  $(IMAGE_PROGRAMS)

# The folder may also have files of another version, or of more platforms.
RELEASE_FILES = crd.yaml image.tar install.yaml kubectl-teo_prefetch_$(VERSION)_*.tar.gz kubectl-teo_prefetch_$(VERSION)_*.zip \
	$(PLATFORMS:%=sbom-%.spdx.json) $(notdir $(CHART))-$(VERSION:v%=%).tgz teo-prefetch.yaml

# The chart is packed from a copy with this version, this image and the commit's time.
.PHONY: release
release: verify-version image $(PLUGIN_PLATFORMS:%=$(DIST)/%/kubectl-teo_prefetch) bin/helm bin/helm-docs bin/k8s/kubectl ## Build a release in dist/: manifests, chart, image, plugin, SBOMs, checksums; VERSION, IMAGE=registry/name
	@rm -f $(DIST)/*.tgz $(DIST)/*.tar.gz $(DIST)/*.zip
	go run ./hack/plugin -version=$(VERSION) -created=$(SOURCE_DATE_EPOCH) -out=$(DIST) $(PLUGIN_PLATFORMS:%=$(DIST)/%/kubectl-teo_prefetch)
	@chart=$$(mktemp -d)/$(notdir $(CHART)); trap 'rm -rf "$${chart%/*}"' EXIT; \
	image='s|image: .*/teo-prefetch-operator:.*|image: $(IMAGE):$(VERSION)|'; \
	bin/k8s/kubectl kustomize config/default | sed "$$image" > $(DIST)/install.yaml; \
	bin/k8s/kubectl kustomize config/crd > $(DIST)/crd.yaml; \
	cp -R $(CHART) "$$chart"; \
	sed -e "$$image" -e 's|^version: .*|version: $(VERSION:v%=%)|' -e 's|^appVersion: .*|appVersion: $(VERSION)|' $(CHART)/Chart.yaml > "$$chart/Chart.yaml"; \
	sed 's|^  repository: .*|  repository: $(IMAGE)|' $(CHART)/values.yaml > "$$chart/values.yaml"; \
	bin/helm-docs --chart-search-root="$$chart" --sort-values-order=file --log-level=warning; \
	find "$$chart" -exec touch -d @$(SOURCE_DATE_EPOCH) {} +; \
	bin/helm package --destination $(DIST) "$$chart" > /dev/null; \
	cd $(DIST); shopt -s nullglob; sha256sum -- $(RELEASE_FILES) > SHA256SUMS; cat SHA256SUMS; \
	echo "The release $(VERSION) is in $(DIST). docs/release.md says how to publish it."

# The chart, the manifests and the changelog of a tagged commit must have the version of the tag.
.PHONY: verify-version
verify-version:
	@[[ '$(VERSION)' =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?$$ ]] || { echo "VERSION is $(VERSION): use a version such as v0.2.0 or v0.2.0-rc.1."; exit 1; }
	@[[ ! '$(VERSION)' =~ ^v[0-9]+\.[0-9]+\.[0-9]+$$ ]] || grep -qx 'appVersion: $(VERSION)' $(CHART)/Chart.yaml || { \
	  echo "VERSION is $(VERSION), and $(CHART)/Chart.yaml has another: set it there and in config/manager/manager.yaml, and make manifests."; exit 1; }
	@[[ ! '$(VERSION)' =~ ^v[0-9]+\.[0-9]+\.[0-9]+$$ ]] || grep -q '^## $(VERSION:v%=%) - ' CHANGELOG.md || { \
	  echo "CHANGELOG.md has no entry for $(VERSION): move what is under Unreleased to a heading \"## $(VERSION:v%=%) - $$(date +%F)\"."; exit 1; }

##@ Tools, built once from the versions pinned in hack/

# The index in which setup-envtest finds prebuilt etcd, kube-apiserver and kubectl. If the URL
# is empty, or the index does not have the programs, make builds them from source.
ENVTEST_INDEX ?= https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml

ifdef KUBEBUILDER_ASSETS
.PHONY: control-plane
control-plane: ## Get etcd, kube-apiserver and kubectl: prebuilt, or from source (12 minutes; ENVTEST_INDEX= skips the download), or use those in KUBEBUILDER_ASSETS
	@for program in etcd kube-apiserver; do \
	  [ -x "$$KUBEBUILDER_ASSETS/$$program" ] || { echo "KUBEBUILDER_ASSETS is $$KUBEBUILDER_ASSETS, where $$program is missing."; exit 1; }; done
else
export KUBEBUILDER_ASSETS := $(CURDIR)/bin/k8s
.PHONY: control-plane
control-plane: prerequisites
	@go run ./hack/controlplane -version=$(K8S_VERSION) -index='$(ENVTEST_INDEX)' hack/kubernetes/go.mod hack/kubernetes/go.sum hack/tools/go.mod hack/tools/go.sum
	@$(MAKE) control-plane-from-source
endif

# Builds the programs that are not up to date. Prebuilt programs are up to date.
.PHONY: control-plane-from-source
control-plane-from-source: bin/k8s/etcd bin/k8s/kube-apiserver bin/k8s/kubectl
	@:

# The programs of Kubernetes report the version that the linker sets.
K8S_LDFLAGS = -s -w $(foreach package,k8s.io/client-go/pkg/version k8s.io/component-base/version,\
	-X $(package).gitVersion=$(K8S_VERSION) \
	-X $(package).gitMajor=$(word 1,$(subst ., ,$(K8S_VERSION:v%=%))) \
	-X $(package).gitMinor=$(word 2,$(subst ., ,$(K8S_VERSION:v%=%))))

bin/k8s/etcd: hack/tools/go.mod hack/tools/go.sum | prerequisites
	@echo "Building etcd $(ETCD_VERSION) (about 1 minute the first time)…"
	go -C hack/tools build -ldflags='-s -w' -o $(CURDIR)/$@ go.etcd.io/etcd/server/v3
	@touch $@

KUBERNETES := $(addprefix bin/k8s/,kube-apiserver kubectl kube-controller-manager kube-scheduler)
$(KUBERNETES): hack/kubernetes/go.mod hack/kubernetes/go.sum | prerequisites
	@echo "Building $(@F) $(K8S_VERSION) (about 10 minutes the first time, or 1 after another program of Kubernetes)…"
	go -C hack/kubernetes build -ldflags='$(strip $(K8S_LDFLAGS))' -o $(CURDIR)/$@ k8s.io/kubernetes/cmd/$(@F)
	@touch $@

# The programs that test/install and test/monitoring need in addition to the control plane.
# They are built here even if the control plane comes from KUBEBUILDER_ASSETS.
.PHONY: cluster-tools
cluster-tools: bin/k8s/kube-controller-manager bin/k8s/kube-scheduler bin/k8s/kubectl bin/helm bin/kwok bin/prometheus bin/promtool bin/kube-state-metrics ## Build the programs that install, run and monitor the chart in tests

bin/helm: MODULE := helm.sh/helm/v4
bin/helm-docs: MODULE := github.com/norwoodj/helm-docs
bin/helm-unittest: MODULE := github.com/helm-unittest/helm-unittest
bin/helm bin/helm-docs bin/helm-unittest: hack/tools/go.mod hack/tools/go.sum | prerequisites
	@echo "Building $(@F) $(call version,hack/tools,$(MODULE)) (1 to 3 minutes the first time)…"
	go -C hack/tools build -ldflags='-s -w -X helm.sh/helm/v4/internal/version.version=$(HELM_VERSION)' -o $(CURDIR)/$@ $(MODULE)/cmd/$(@F)
	@touch $@

bin/krew bin/validate-krew-manifest: hack/tools/go.mod hack/tools/go.sum | prerequisites
	@echo "Building $(@F) $(KREW_VERSION) (less than a minute)…"
	go -C hack/tools build -ldflags='-s -w' -o $(CURDIR)/$@ sigs.k8s.io/krew/cmd/$(@F)
	@touch $@

bin/kwok: hack/kubernetes/go.mod hack/kubernetes/go.sum | prerequisites
	@echo "Building kwok $(KWOK_VERSION) (about 2 minutes the first time)…"
	go -C hack/kubernetes build -ldflags='-s -w' -o $(CURDIR)/$@ sigs.k8s.io/kwok/cmd/kwok
	@touch $@

# The build excludes service discovery for a dozen clouds, which is most of the code.
bin/prometheus bin/promtool: hack/prometheus/go.mod hack/prometheus/go.sum | prerequisites
	@echo "Building $(@F) $(PROMETHEUS_VERSION) (2 to 4 minutes the first time)…"
	go -C hack/prometheus build -tags=remove_all_sd -ldflags='-s -w' -o $(CURDIR)/$@ github.com/prometheus/prometheus/cmd/$(@F)
	@touch $@

bin/kube-state-metrics: hack/kubestatemetrics/go.mod hack/kubestatemetrics/go.sum | prerequisites
	@echo "Building kube-state-metrics $(KUBE_STATE_METRICS_VERSION) (about 4 minutes the first time)…"
	go -C hack/kubestatemetrics build -ldflags='-s -w' -o $(CURDIR)/$@ k8s.io/kube-state-metrics/v2
	@touch $@

bin/freeze: | prerequisites
	GOBIN=$(CURDIR)/bin go install github.com/charmbracelet/freeze@v0.2.2

bin/golangci-lint: hack/tools/go.mod hack/tools/go.sum hack/tools/golangci-lint/main.go | prerequisites
	@echo "Building golangci-lint $(GOLANGCI_LINT_VERSION) with kube-api-linter (about 3 minutes the first time)…"
	go -C hack/tools build -o $(CURDIR)/$@ ./golangci-lint
	@touch $@

bin/image: $(wildcard hack/image/*.go) hack/image/go.mod hack/image/go.sum | prerequisites
	@echo "Building bin/image (less than a minute)…"
	go -C hack/image build -o $(CURDIR)/$@ .
	@touch $@

.PHONY: clean
clean: ## Remove the built files, but not Go's build cache
	rm -rf bin dist

.PHONY: prerequisites
prerequisites:
	@command -v git > /dev/null || { echo "git is missing: install it."; exit 1; }
	@command -v go > /dev/null || { echo "Go is missing: install $(shell awk '$$1 == "go" { print $$2 }' go.mod) or later."; exit 1; }
	@go list -m > /dev/null || { echo "Install the Go version that go.mod asks for (here: $$(go env GOVERSION))."; exit 1; }

.PHONY: kubectl
kubectl:
	@command -v $(KUBECTL) > /dev/null || { echo "kubectl is missing: install it, or make bin/k8s/kubectl."; exit 1; }
