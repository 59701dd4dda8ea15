package teo

import (
	"context"
	"errors"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/target"
)

const actionCreate = ActionCreatePrefetchTask

// The actions, by EdgeOne's names: keys of limiters and labels of metrics.
const (
	ActionCreatePrefetchTask    = "CreatePrefetchTask"
	ActionDescribePrefetchTasks = "DescribePrefetchTasks"
	ActionDescribeContentQuota  = "DescribeContentQuota"
)

// CreatePrefetchTaskRequest is the call's parameters as they are sent; what is
// unset is left out, because EdgeOne refuses parameters it does not know.
// https://www.tencentcloud.com/document/product/1145/50537
type CreatePrefetchTaskRequest struct {
	// Targets are the URLs; at most Quota.Batch of them.
	Targets []string
	// ZoneID is zone-…, or * for URLs of several zones.
	ZoneID string `json:"ZoneId"`
	// Mode is default or edge.
	Mode string `json:",omitempty"`
	// EncodeURL asks EdgeOne to percent-encode the targets. Deprecated there.
	EncodeURL *bool `json:"EncodeUrl,omitempty"`
	// Headers are request headers to prefetch with.
	Headers []Header `json:",omitempty"`
	// PrefetchMediaSegments is on (follow M3U8 manifests) or off.
	PrefetchMediaSegments string `json:",omitempty"`
}

// Header is an HTTP header of the prefetch requests.
type Header struct{ Name, Value string }

// CreatePrefetchTaskResponse is what EdgeOne accepted and what it did not.
type CreatePrefetchTaskResponse struct {
	// JobID of the accepted targets; "" only if Failed covers every target.
	JobID string
	// Failed are the targets that were not accepted.
	Failed    []FailedTargets
	RequestID string
}

// FailedTargets are targets that were not accepted, all for one reason.
type FailedTargets struct {
	Reason  string
	Targets []string
}

// CreatePrefetchTask hands URLs over: one attempt, signed with signedAt (cut
// to whole seconds), however late it is sent. The caller holds a slot of
// Limiter(creds, ActionCreatePrefetchTask).
//
// An error of kind Ambiguous means that EdgeOne may have executed the call, or
// may yet do so until the signature expires. Every other kind means that it
// did not and will not. Errors that wrap ErrTooOld come without an attempt,
// when ServerTime is past SendBefore(signedAt).
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

type createAnswer struct {
	sent    []string
	failed  []FailedTargets
	targets int // in failed
}

func (a *createAnswer) read(field string, from *jsonReader) {
	if field != "FailedList" {
		from.skip()
		return
	}
	// A target may be refused for two reasons, hardly for more.
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

// problem accepts an answer without a job only if it says of every target that
// it was refused. Otherwise there may be a job whose name got lost.
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
