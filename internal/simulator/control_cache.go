package simulator

import (
	"context"
	"net/http"
	"time"
)

// published is the answer to POST /_simulator/publish.
type published struct {
	Time time.Time `json:"time"`
}

// handleCache adds the control endpoints of the cache.
func (s *Simulator) handleCache(mux *http.ServeMux) {
	mux.HandleFunc("POST /_simulator/publish", accept(Publication.validate, func(p Publication) any { return published{s.Publish(p)} }))
	mux.HandleFunc("POST /_simulator/warm", accept(Selection.validate, func(w Selection) any { s.Warm(w); return struct{}{} }))
	mux.HandleFunc("POST /_simulator/expire", accept(Selection.validate, func(e Selection) any { s.Expire(e); return struct{}{} }))
	mux.HandleFunc("POST /_simulator/visits", accept(valid[Visit], func(v Visit) any { return s.VisitWith(v) }))
	mux.HandleFunc("GET /_simulator/journal", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, s.Journal()) })
}

// valid accepts every value.
func valid[T any](T) error { return nil }

// Publish gives URLs a new version at the origin; see [Simulator.Publish].
func (c Control) Publish(ctx context.Context, p Publication) (time.Time, error) {
	answer, err := request[published](ctx, c, http.MethodPost, "publish", p)
	return answer.Time, err
}

// Warm fills both tiers with the current version of URLs; see [Simulator.Warm].
func (c Control) Warm(ctx context.Context, selection Selection) error {
	return c.do(ctx, http.MethodPost, "warm", selection)
}

// Expire makes the copies of URLs expire; see [Simulator.Expire].
func (c Control) Expire(ctx context.Context, selection Selection) error {
	return c.do(ctx, http.MethodPost, "expire", selection)
}

// Visit visits URLs; see [Simulator.VisitWith].
func (c Control) Visit(ctx context.Context, v Visit) ([]Seen, error) {
	return request[[]Seen](ctx, c, http.MethodPost, "visits", v)
}

// Journal returns what happened to the cache so far.
func (c Control) Journal(ctx context.Context) (Journal, error) {
	return request[Journal](ctx, c, http.MethodGet, "journal", nil)
}

// Finish ends the targets of prefetches that contain a text and are still processing; see
// [Simulator.Finish].
func (c Control) Finish(ctx context.Context, url, status, failType, failMessage string) (int, error) {
	return c.finish(ctx, finishing{createPrefetch, url, status, failType, failMessage})
}

// FinishPurges is Finish for the targets of purges.
func (c Control) FinishPurges(ctx context.Context, target, status, failType, failMessage string) (int, error) {
	return c.finish(ctx, finishing{createPurge, target, status, failType, failMessage})
}

func (c Control) finish(ctx context.Context, f finishing) (int, error) {
	answer, err := request[finished](ctx, c, http.MethodPost, "finish", f)
	return answer.Finished, err
}
