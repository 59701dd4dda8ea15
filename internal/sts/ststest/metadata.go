package ststest

import (
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
)

// The role of the node that Metadata serves.
const (
	CVMRole    = "prefetch-node"
	CVMRoleARN = "qcs::cam::uin/100000000001:roleName/" + CVMRole
)

// Metadata is the metadata service of a CVM with one role. It serves HTTP, and also is a
// transport for tests that control the time.
type Metadata struct {
	Simulator *simulator.Simulator
	Account   string        // of the role
	Lifetime  time.Duration // of new keys

	mu    sync.Mutex
	key   simulator.Key
	reads int
}

// Reads returns the number of requests.
func (m *Metadata) Reads() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reads
}

// ServeHTTP answers a request.
func (m *Metadata) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	name, ok := strings.CutPrefix(r.URL.Path, "/latest/meta-data/cam/security-credentials/")
	if !ok || name != CVMRole || r.Method != http.MethodGet {
		http.NotFound(w, r)
		return
	}
	if now := m.Simulator.Now(); !now.Before(m.key.Expires) {
		m.key = simulator.Key{
			SecretID: "AKID" + rand.Text(), SecretKey: rand.Text(), Token: rand.Text(),
			Account: m.Account, Role: CVMRoleARN, Expires: now.Add(m.Lifetime).Truncate(time.Second),
		}
		m.Simulator.SetKey(m.key)
	}
	_ = json.NewEncoder(w).Encode(map[string]any{
		"TmpSecretId": m.key.SecretID, "TmpSecretKey": m.key.SecretKey, "Token": m.key.Token,
		"ExpiredTime": m.key.Expires.Unix(), "Expiration": m.key.Expires.UTC().Format(time.RFC3339), "Code": "Success",
	})
}

// RoundTrip answers a request.
func (m *Metadata) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r)
	answer := w.Result()
	answer.Request = r
	return answer, nil
}
