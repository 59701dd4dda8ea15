// Pins the CRDs of the Prometheus operator, which are files of this package's folder:
// test/install has an API server accept what the chart has for it.
module github.com/prefetch-operator/teo-prefetch-operator/hack/prometheus-operator

go 1.26.0

tool github.com/prometheus-operator/prometheus-operator/example

require github.com/prometheus-operator/prometheus-operator v0.94.1 // indirect
