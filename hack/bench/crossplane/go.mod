module github.com/prefetch-operator/teo-prefetch-operator/hack/bench/crossplane

go 1.26.0

require github.com/crossplane/crossplane-runtime v1.20.0
