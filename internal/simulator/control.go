package simulator

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// controlHelp is the answer to GET /_simulator/.
const controlHelp = `Control of the EdgeOne simulator. Bodies are JSON, durations texts such as "2s".

GET    /_simulator/ledger       what EdgeOne executed, in order
GET    /_simulator/calls        every finished call and its outcome
GET    /_simulator/stats        rates and peaks by account and action, outcomes, jobs, duplicates
POST   /_simulator/faults       {"match":{…},"effect":{…}} adds a misbehaviour, answers {"id":1}
DELETE /_simulator/faults       ends all misbehaviour
DELETE /_simulator/faults/{id}  ends one; calls that it holds go on
POST   /_simulator/quota        {"zoneID":"zone-…","type":"purge_url","available":3} sets what is left
                                today; type: prefetch_url (default), prefetch_edge or a type of purge
POST   /_simulator/quota/reset  gives every zone its daily quotas back
POST   /_simulator/keys         adds a key or replaces it
DELETE /_simulator/keys/{id}    removes a key
POST   /_simulator/roles        adds a role or replaces it
POST   /_simulator/identity-providers  adds an OIDC provider or replaces it
POST   /_simulator/zones        adds a zone or changes its settings
POST   /_simulator/rules        [{…}] replaces the rules for URLs
POST   /_simulator/traffic      [{…}] replaces what other programs submit
POST   /_simulator/finish       {"action":"CreatePurgeTask","url":"…","status":"failed"} ends targets with a
                                text that are processing, answers {"finished":1}
POST   /_simulator/publish      {"urls":[…],"tags":[…]} gives URLs a new version at the origin, answers {"time":"…"};
                                "prefix":"…" or "all":true instead of urls, here and in the next two
POST   /_simulator/warm         {"urls":[…]} fills both tiers with the current version
POST   /_simulator/expire       {"urls":[…]} makes copies expire
POST   /_simulator/visits       {"urls":[…]} visits URLs, answers [{"version":1,"status":"HIT",…}]; "noFill":true stores
                                nothing, "peek":true changes nothing
GET    /_simulator/journal      what happened to the cache, in order
POST   /_simulator/jobs         {"id":"…","zoneID":"zone-…","type":"…","method":"…","urls":[…],"created":"…"} adds
                                a job of another program

match:  action, secretID, zoneID, type (of a purge), url (a text in a target), bodyOver (bytes);
        of those: nth, every, count, probability, seed
effect: code, message; answer (close, reset, truncated, bad-gateway, redirect, empty, {}, null,
        no-request-id, no-job-id); status, statusText, body, location; elements (of every list);
        executed (true: executed all the same); cutBody (bytes: the connection is closed after them);
        delay, serverDelay, answerDelay; hold (request, execution, answer: until the fault is deleted)
rules:  action (CreatePrefetchTask, unless it is CreatePurgeTask), url; refuse; code, message, executed;
        status, failType, failMessage, duration, listingDelay, cacheDelay, segments
traffic: zoneID, every; type, method; urls, targets, duration

{secretID}, {token}, {signature}, {authorization} and {proxyAuthorization} in a code, a message,
a statusText or a body stand for what the request holds.
`

// quotaSetting is the body of POST /_simulator/quota.
type quotaSetting struct {
	ZoneID    string `json:"zoneID"`
	Type      string `json:"type,omitempty"` // default: prefetch_url
	Available int    `json:"available"`
}

// faultAdded is the answer to POST /_simulator/faults.
type faultAdded struct {
	ID int `json:"id"`
}

// WithControl returns a handler that answers API calls and, under /_simulator/, the
// control endpoints. GET /_simulator/ lists them. They require no credentials, so serve
// them only on a loopback address.
func (s *Simulator) WithControl() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", s)
	mux.HandleFunc("GET /_simulator/{$}", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, controlHelp)
	})
	mux.HandleFunc("GET /_simulator/ledger", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Ledger()) })
	mux.HandleFunc("GET /_simulator/calls", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Calls()) })
	mux.HandleFunc("GET /_simulator/stats", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Stats()) })

	mux.HandleFunc("POST /_simulator/faults", accept(Fault.Validate, func(f Fault) any { return faultAdded{s.AddFault(f)} }))
	mux.HandleFunc("DELETE /_simulator/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.ClearFaults()
		writeJSON(w, struct{}{})
	})
	mux.HandleFunc("DELETE /_simulator/faults/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, _ := strconv.Atoi(r.PathValue("id")) // there is no fault 0
		s.RemoveFault(id)
		writeJSON(w, struct{}{})
	})
	mux.HandleFunc("POST /_simulator/quota", accept(s.validateQuota, func(q quotaSetting) any {
		s.SetQuota(q.ZoneID, cmp.Or(q.Type, prefetchURL), q.Available)
		return q
	}))
	mux.HandleFunc("POST /_simulator/quota/reset", func(w http.ResponseWriter, _ *http.Request) {
		s.ResetQuota()
		writeJSON(w, struct{}{})
	})
	mux.HandleFunc("POST /_simulator/keys", accept(Key.validate, func(k Key) any { s.SetKey(k); return struct{}{} }))
	mux.HandleFunc("DELETE /_simulator/keys/{id}", func(w http.ResponseWriter, r *http.Request) {
		s.RemoveKey(r.PathValue("id"))
		writeJSON(w, struct{}{})
	})
	mux.HandleFunc("POST /_simulator/roles", accept(Role.validate, func(r Role) any { s.SetRole(r); return struct{}{} }))
	mux.HandleFunc("POST /_simulator/identity-providers",
		accept(IdentityProvider.validate, func(p IdentityProvider) any { s.SetIdentityProvider(p); return struct{}{} }))
	mux.HandleFunc("POST /_simulator/zones", accept(Zone.validate, func(z Zone) any { s.SetZone(z); return struct{}{} }))
	mux.HandleFunc("POST /_simulator/rules", accept(validateRules, func(r []Rule) any { s.SetRules(r...); return struct{}{} }))
	mux.HandleFunc("POST /_simulator/traffic", accept(validateTraffic, func(t []Traffic) any { s.SetTraffic(t...); return struct{}{} }))
	mux.HandleFunc("POST /_simulator/finish", accept(finishing.validate, func(f finishing) any { return finished{s.finishTargets(f)} }))
	s.handleCache(mux)
	mux.HandleFunc("POST /_simulator/jobs", accept(s.validateJob, func(j Job) any { s.AddJob(j); return struct{}{} }))
	return mux
}

func (s *Simulator) validateQuota(q quotaSetting) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.zones[q.ZoneID] == nil {
		return fmt.Errorf("there is no zone %q", q.ZoneID)
	}
	if _, ok := defaultLimits[q.Type]; !ok && q.Type != "" {
		return fmt.Errorf("there is no quota of the type %q", q.Type)
	}
	return nil
}

// accept returns a handler for requests whose JSON body is a T. It validates the body,
// and answers with the result of do.
func accept[T any](validate func(T) error, do func(T) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var value T
		err := readJSON(http.MaxBytesReader(w, r.Body, maxBody), &value)
		if err == nil {
			err = validate(value)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		writeJSON(w, do(value))
	}
}

func writeJSON(w http.ResponseWriter, value any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value)
}

// Control controls a simulator in another process.
type Control struct {
	// URL is the simulator's base URL, such as http://127.0.0.1:8081.
	URL string
	// HTTP is the client to use. Default: http.DefaultClient.
	HTTP *http.Client
}

// Ledger returns what EdgeOne has executed so far.
func (c Control) Ledger(ctx context.Context) (Ledger, error) {
	return request[Ledger](ctx, c, http.MethodGet, "ledger", nil)
}

// Calls returns the finished calls, in the order in which they finished.
func (c Control) Calls(ctx context.Context) ([]Call, error) {
	return request[[]Call](ctx, c, http.MethodGet, "calls", nil)
}

// Stats summarizes what has happened so far.
func (c Control) Stats(ctx context.Context) (Stats, error) {
	return request[Stats](ctx, c, http.MethodGet, "stats", nil)
}

// AddFault adds a fault and returns its ID for RemoveFault.
func (c Control) AddFault(ctx context.Context, f Fault) (int, error) {
	added, err := request[faultAdded](ctx, c, http.MethodPost, "faults", f)
	return added.ID, err
}

// RemoveFault removes a fault. The calls that it holds continue.
func (c Control) RemoveFault(ctx context.Context, id int) error {
	return c.do(ctx, http.MethodDelete, "faults/"+strconv.Itoa(id), nil)
}

// ClearFaults removes all faults. The calls that they hold continue.
func (c Control) ClearFaults(ctx context.Context) error {
	return c.do(ctx, http.MethodDelete, "faults", nil)
}

// SetAvailable sets how many URLs are left of a zone's daily quota.
func (c Control) SetAvailable(ctx context.Context, zoneID string, urls int) error {
	return c.do(ctx, http.MethodPost, "quota", quotaSetting{ZoneID: zoneID, Available: urls})
}

// SetQuota sets how much is left of a zone's daily quota of a type; see
// [Simulator.SetQuota].
func (c Control) SetQuota(ctx context.Context, zoneID, quotaType string, left int) error {
	return c.do(ctx, http.MethodPost, "quota", quotaSetting{zoneID, quotaType, left})
}

// ResetQuota restores the daily quotas of all zones.
func (c Control) ResetQuota(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "quota/reset", nil)
}

// SetKey adds a key, or replaces the key with the same SecretId.
func (c Control) SetKey(ctx context.Context, k Key) error {
	return c.do(ctx, http.MethodPost, "keys", k)
}

// RemoveKey removes a key.
func (c Control) RemoveKey(ctx context.Context, secretID string) error {
	return c.do(ctx, http.MethodDelete, "keys/"+secretID, nil)
}

// SetZone adds a zone, or changes the settings of the zone with the same ID.
func (c Control) SetZone(ctx context.Context, z Zone) error {
	return c.do(ctx, http.MethodPost, "zones", z)
}

// SetRules replaces the rules for URLs.
func (c Control) SetRules(ctx context.Context, rules ...Rule) error {
	return c.do(ctx, http.MethodPost, "rules", append([]Rule{}, rules...))
}

// SetTraffic replaces the traffic of other programs.
func (c Control) SetTraffic(ctx context.Context, traffic ...Traffic) error {
	return c.do(ctx, http.MethodPost, "traffic", append([]Traffic{}, traffic...))
}

// AddJob adds a job to a zone's history; see [Simulator.AddJob].
func (c Control) AddJob(ctx context.Context, j Job) error {
	return c.do(ctx, http.MethodPost, "jobs", j)
}

// do calls a control endpoint whose answer does not matter.
func (c Control) do(ctx context.Context, method, path string, in any) error {
	_, err := request[struct{}](ctx, c, method, path, in)
	return err
}

// request calls a control endpoint and decodes its answer.
func request[Out any](ctx context.Context, c Control, method, path string, in any) (out Out, err error) {
	body, err := json.Marshal(in)
	if err != nil {
		return out, err
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(c.URL, "/")+"/_simulator/"+path, bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	resp, err := cmp.Or(c.HTTP, http.DefaultClient).Do(req)
	if err != nil {
		return out, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return out, fmt.Errorf("simulator: %s %s: %s", method, path, strings.TrimSpace(string(text)))
	}
	return out, json.NewDecoder(resp.Body).Decode(&out)
}
