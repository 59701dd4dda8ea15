// Pins the CRDs of the Prometheus operator, which lie in the folder of the package below.
// test/install applies them, and what the chart has for that operator.
module github.com/prefetch-operator/teo-prefetch-operator/hack/prometheus-operator

go 1.26.0

tool github.com/prometheus-operator/prometheus-operator/example

require github.com/prometheus-operator/prometheus-operator v0.94.1 // indirect
