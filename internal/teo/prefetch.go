package teo

import (
	"context"
	"errors"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

const actionCreate = ActionCreatePrefetchTask

// The actions, by EdgeOne's names. They are keys of limiters and labels of metrics.
const (
	ActionCreatePrefetchTask    = "CreatePrefetchTask"
	ActionDescribePrefetchTasks = "DescribePrefetchTasks"
	ActionDescribeContentQuota  = "DescribeContentQuota"
)

// CreatePrefetchTaskRequest holds the parameters of the call as they are sent. Unset
// parameters are omitted, because EdgeOne refuses parameters that it does not know.
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

// CreatePrefetchTaskResponse is what EdgeOne accepted and what it refused.
type CreatePrefetchTaskResponse struct {
	// JobID is the job of the accepted targets; it is "" only if Failed has every target.
	JobID string
	// Failed are the targets that EdgeOne did not accept.
	Failed    []FailedTargets
	RequestID string
}

// FailedTargets are targets that EdgeOne did not accept, all for the same reason.
type FailedTargets struct {
	Reason  string
	Targets []string
}

// CreatePrefetchTask submits URLs in one attempt, signed with signedAt (cut to whole
// seconds) no matter how late the call is sent. The caller holds a slot of Limiter(creds,
// ActionCreatePrefetchTask).
//
// An error of kind Ambiguous means that EdgeOne may have executed the call, or may still
// execute it until the signature expires. Every other kind means that EdgeOne did not
// execute it and will not. If ServerTime is past SendBefore(signedAt), the client makes
// no attempt, and the error wraps ErrTooOld.
func (c *Client) CreatePrefetchTask(ctx context.Context, creds Credentials, signedAt time.Time,
	req CreatePrefetchTaskRequest) (CreatePrefetchTaskResponse, error) {
	if c.ServerTime().After(c.SendBefore(signedAt)) {
		return CreatePrefetchTaskResponse{}, &Error{Action: actionCreate, Kind: Unavailable, Message: "not sent", Err: ErrTooOld}
	}
	out := createAnswer{sent: req.Targets}
	answer, err := c.call(ctx, request{creds, actionCreate, signedAt, req}, &out)
	if err != nil {
		return CreatePrefetchTaskResponse{}, err
	}
	return CreatePrefetchTaskResponse{JobID: answer.jobID, Failed: out.failed, RequestID: answer.requestID}, nil
}

// createAnswer reads what EdgeOne did not accept of the targets that were sent.
type createAnswer struct {
	sent    []string
	failed  []FailedTargets
	targets int // number of targets in failed
}

func (a *createAnswer) read(field string, from *jsonReader) {
	if field != "FailedList" {
		from.skip()
		return
	}
	// EdgeOne may refuse a target for two reasons, but hardly for more.
	limit := 2 * len(a.sent)
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
		for _, u := range f.Targets {
			failed[target.Identity(u)] = true
		}
	}
	for _, u := range a.sent {
		if !failed[target.Identity(u)] {
			return errors.New("neither a JobId nor every target in FailedList")
		}
	}
	return nil
}
