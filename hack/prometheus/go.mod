// Builds prometheus and promtool, which test/monitoring asks the queries of the chart.
module github.com/prefetch-operator/teo-prefetch-operator/hack/prometheus

go 1.26.0
