package teo

import (
	"context"
	"encoding/json"
	"errors"
)

// Quota is what a zone may prefetch by URL, all in numbers of URLs. Batch and
// Daily are at least 1; a DailyAvailable of 0 means that today's is used up.
type Quota struct {
	Batch          int // in one call
	Daily          int // in a day
	DailyAvailable int // left of today's
}

// DescribeContentQuota reads the quota of prefetching by URL in mode default;
// EdgeOne does not tell that of mode edge. A zone without such a quota, or with
// one of nothing, gives an error that wraps ErrNoPrefetchQuota.
func (c *Client) DescribeContentQuota(ctx context.Context, creds Credentials, zoneID string) (Quota, error) {
	in := struct {
		ZoneID string `json:"ZoneId"`
	}{zoneID}
	var out quotaAnswer
	err := c.lookUp(ctx, creds, ActionDescribeContentQuota, in, out.decode)
	if err != nil {
		return Quota{}, err
	}
	cause := ErrNoPrefetchQuota
	switch {
	case out.quota == nil:
	case out.quota.Batch <= 0 || out.quota.Daily <= 0:
		cause = ErrZeroQuota
	default:
		return *out.quota, nil
	}
	return Quota{}, &Error{Action: ActionDescribeContentQuota, Kind: Rejected, Message: ErrNoPrefetchQuota.Error(), RequestID: out.requestID, Err: cause}
}

type quotaAnswer struct {
	quota     *Quota // nil if there is none for prefetch by URL
	requestID string
}

// decode refuses a quota that lacks a number: what is not told is not 0.
func (a *quotaAnswer) decode(response []byte) error {
	var answer struct {
		PrefetchQuota []struct {
			Type                         string
			Batch, Daily, DailyAvailable *int
		}
		RequestID string `json:"RequestId"`
	}
	if err := json.Unmarshal(response, &answer); err != nil {
		return err
	}
	a.requestID = answer.RequestID
	for _, q := range answer.PrefetchQuota {
		if q.Type != "prefetch_url" {
			continue
		}
		if q.Batch == nil || q.Daily == nil || q.DailyAvailable == nil {
			return errors.New("a quota without its numbers")
		}
		a.quota = &Quota{Batch: *q.Batch, Daily: *q.Daily, DailyAvailable: max(*q.DailyAvailable, 0)}
		return nil
	}
	return nil
}
