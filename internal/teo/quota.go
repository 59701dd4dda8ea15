package teo

import "context"

// Quota is what a zone may prefetch by URL; all numbers count URLs. Batch and Daily are
// at least 1. A DailyAvailable of 0 means that today's quota is used up.
type Quota struct {
	Batch          int // per call
	Daily          int // per day
	DailyAvailable int // left of today's quota
}

// DescribeContentQuota reads the quota of prefetch by URL in the default mode; EdgeOne
// does not report the quota of the edge mode. If the zone has no such quota, or a quota
// of 0, the error wraps ErrNoPrefetchQuota.
func (c *Client) DescribeContentQuota(ctx context.Context, creds Credentials, zoneID string) (Quota, error) {
	in := struct {
		ZoneID string `json:"ZoneId"`
	}{zoneID}
	var out *quotaAnswer
	err := c.lookUp(ctx, creds, ActionDescribeContentQuota, in, func() content {
		out = &quotaAnswer{}
		return out
	})
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

// maxQuotas bounds the quotas of an answer. EdgeOne has fewer types of quotas.
const maxQuotas = 64

// quotaAnswer reads the quota of prefetch by URL and skips all other types.
type quotaAnswer struct {
	quota     *Quota // nil if EdgeOne reports none
	requestID string
}

func (a *quotaAnswer) read(field string, from *jsonReader) {
	if field != "PrefetchQuota" {
		from.skip()
		return
	}
	from.array(maxQuotas, func() { a.readQuota(from) })
}

// readQuota refuses a quota that lacks a number, because a missing number is not 0.
func (a *quotaAnswer) readQuota(from *jsonReader) {
	var kind string
	var batch, daily, available *int
	from.object(func(field string) {
		switch field {
		case "Type":
			kind = from.text()
		case "Batch":
			batch = from.number()
		case "Daily":
			daily = from.number()
		case "DailyAvailable":
			available = from.number()
		default:
			from.skip()
		}
	})
	switch {
	case kind != "prefetch_url":
	case batch == nil || daily == nil || available == nil:
		from.malformed("a quota without its numbers")
	default:
		a.quota = &Quota{Batch: *batch, Daily: *daily, DailyAvailable: max(*available, 0)}
	}
}

func (a *quotaAnswer) problem(answer response) error {
	a.requestID = answer.requestID
	return nil
}
