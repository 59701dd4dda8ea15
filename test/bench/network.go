package main

import (
	"net/http"
	"net/http/httptest"
	"time"
)

// network simulates the network to EdgeOne. It delays each call by half a round trip
// before EdgeOne receives it, and each response by the other half.
func network(edgeOne http.Handler, roundTrip time.Duration) *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hold(roundTrip / 2)
		answer := httptest.NewRecorder()
		edgeOne.ServeHTTP(answer, r)
		hold(roundTrip / 2)
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()) // the caller may be gone
	}))
}
