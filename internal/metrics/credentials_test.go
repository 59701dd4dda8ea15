package metrics

import (
	"errors"
	"maps"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

func TestEachAccountWithARoleHasItsOwnSeriesUntilItIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		registry := prometheus.NewPedanticRegistry()
		registry.MustRegister(CredentialsExpiry, refreshFailures)
		want := func(when string, series map[string]float64) {
			t.Helper()
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			got := map[string]float64{}
			for _, family := range families {
				for _, metric := range family.GetMetric() {
					name := "expiry "
					if metric.GetCounter() != nil {
						name = "failures "
					}
					got[name+metric.GetLabel()[0].GetValue()] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue()
				}
			}
			if !maps.Equal(got, series) {
				t.Errorf("%s: %v, want %v", when, got, series)
			}
		}
		ObserveCredentials("", time.Now().Add(time.Hour), nil)
		ObserveCredentials("main", time.Now().Add(2*time.Hour), nil)
		ObserveCredentials("main", time.Now().Add(2*time.Hour), errors.New("no"))
		ObserveCredentials("shop", time.Time{}, errors.New("no"))
		time.Sleep(90 * time.Minute)
		want("after 90 minutes", map[string]float64{"expiry ": -1800, "failures ": 0, "expiry main": 1800, "failures main": 1, "failures shop": 1})
		ForgetCredentials("main")
		want("after the account is gone", map[string]float64{"expiry ": -1800, "failures ": 0, "failures shop": 1})
		ForgetCredentials("shop")
		ForgetCredentials("")
		want("at the end", map[string]float64{})
	})
}
