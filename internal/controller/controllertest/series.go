package controllertest

import (
	"maps"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// Series returns the series of collectors by name and label values: the number of samples of a
// histogram, and the value of any other metric.
func Series(t *testing.T, collectors ...prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(collectors...)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := strings.TrimPrefix(family.GetName(), "teo_prefetch_")
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			values[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return values
}

// Since returns how much each series has changed. It omits unchanged series.
func Since(before, now map[string]float64) map[string]float64 {
	changed := map[string]float64{}
	for name, value := range now {
		if value != before[name] {
			changed[name] = value - before[name]
		}
	}
	return changed
}

// WantSeries fails the test if the series differ.
func WantSeries(t *testing.T, what string, got, want map[string]float64) {
	t.Helper()
	if !maps.Equal(got, want) {
		t.Errorf("%s:\n got %v\nwant %v", what, got, want)
	}
}
