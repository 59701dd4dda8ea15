package teo

import (
	"context"
	"errors"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

// CreateRequest is a request that starts a job: a CreatePrefetchTaskRequest or a
// CreatePurgeTaskRequest. Its fields are the parameters of the call as they are sent.
// Unset parameters are omitted, because EdgeOne refuses parameters that it does not know.
type CreateRequest interface {
	// Identity returns a key that is the same for all spellings of one target of the
	// request.
	Identity(target string) string

	action() string
	sentTargets() []string
	// problem returns why the request must not be sent, or "".
	problem() string
}

// CreatePrefetchTaskRequest submits URLs for prefetching.
// https://www.tencentcloud.com/document/product/1145/50537
type CreatePrefetchTaskRequest struct {
	// Targets are the URLs, at most Quota.Batch of them.
	Targets []string
	// ZoneID is zone-…, or * for URLs of several zones.
	ZoneID string `json:"ZoneId"`
	// Mode is default or edge.
	Mode string `json:",omitempty"`
	// EncodeURL asks EdgeOne to percent-encode the targets. EdgeOne has deprecated it.
	EncodeURL *bool `json:"EncodeUrl,omitempty"`
	// Headers are the request headers of the prefetch.
	Headers []Header `json:",omitempty"`
	// PrefetchMediaSegments is on (follow M3U8 manifests) or off.
	PrefetchMediaSegments string `json:",omitempty"`
}

// Header is an HTTP header of the prefetch requests.
type Header struct{ Name, Value string }

// Identity implements CreateRequest.
func (CreatePrefetchTaskRequest) Identity(url string) string { return target.Identity(url) }

func (CreatePrefetchTaskRequest) action() string          { return ActionCreatePrefetchTask }
func (r CreatePrefetchTaskRequest) sentTargets() []string { return r.Targets }
func (CreatePrefetchTaskRequest) problem() string         { return "" }

// CreateResponse is what EdgeOne accepted and what it refused.
type CreateResponse struct {
	// JobID is the job of the accepted targets; it is "" only if Failed has every target.
	JobID string
	// Failed are the targets that EdgeOne did not accept. CreateRequest.Identity compares
	// them with the targets that were sent.
	Failed    []FailedTargets
	RequestID string
}

// FailedTargets are targets that EdgeOne did not accept for the same reason.
type FailedTargets struct {
	Reason  string
	Targets []string
}

// CreateTask starts a job in one attempt, signed with signedAt (cut to whole seconds) no
// matter how late the call is sent. The caller holds a slot of the Limiter of the
// request's action.
//
// An error of kind Ambiguous means that EdgeOne may have executed the call, or may still
// execute it until the signature expires. Every other kind means that EdgeOne did not
// execute it and will not. If ServerTime is past SendBefore(signedAt), the client makes
// no attempt, and the error wraps ErrTooOld.
func (c *Client) CreateTask(ctx context.Context, creds Credentials, signedAt time.Time, req CreateRequest) (CreateResponse, error) {
	if problem := req.problem(); problem != "" {
		return CreateResponse{}, &Error{Action: req.action(), Kind: Rejected, Message: "not sent: " + problem}
	}
	if c.ServerTime().After(c.SendBefore(signedAt)) {
		return CreateResponse{}, &Error{Action: req.action(), Kind: Unavailable, Message: "not sent: signed too long ago", Err: ErrTooOld}
	}
	out := createAnswer{sent: req}
	answer, err := c.call(ctx, request{creds: creds, action: req.action(), signedAt: signedAt, parameters: req}, &out)
	if err != nil {
		return CreateResponse{}, err
	}
	return CreateResponse{JobID: answer.jobID, Failed: out.failed, RequestID: answer.requestID}, nil
}

// createAnswer reads what EdgeOne did not accept of the targets that were sent.
type createAnswer struct {
	sent    CreateRequest
	failed  []FailedTargets
	targets int // number of targets in failed
}

// read reads FailedList, the only field of its own that the answer has.
func (a *createAnswer) read(field string, from *jsonReader) {
	if field != "FailedList" {
		from.skip()
		return
	}
	// EdgeOne may refuse a target for two reasons, but hardly for more.
	limit := 2 * len(a.sent.sentTargets())
	from.array(limit-len(a.failed), func() {
		var failed FailedTargets
		from.object(func(field string) {
			switch field {
			case "Reason":
				failed.Reason = from.words(maxMessage)
			case "Targets":
				from.array(limit-a.targets, func() {
					failed.Targets = append(failed.Targets, from.text())
					a.targets++
				})
			default:
				from.skip()
			}
		})
		a.failed = append(a.failed, failed)
	})
}

// problem accepts an answer without a JobId only if it lists every target as refused.
// Otherwise there may be a job whose ID was lost.
func (a *createAnswer) problem(answer response) error {
	if answer.jobID != "" {
		return nil
	}
	failed := map[string]bool{}
	for _, f := range a.failed {
		for _, text := range f.Targets {
			failed[a.sent.Identity(text)] = true
		}
	}
	for _, text := range a.sent.sentTargets() {
		if !failed[a.sent.Identity(text)] {
			return errors.New("neither a JobId nor every target in FailedList")
		}
	}
	return nil
}
