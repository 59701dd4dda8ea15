package teo

import "context"

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

// maxQuotas is more than there are types of quotas.
const maxQuotas = 64

type quotaAnswer struct {
	quota     *Quota // nil if there is none for prefetch by URL
	requestID string
}

func (a *quotaAnswer) read(field string, from *jsonReader) {
	if field != "PrefetchQuota" {
		from.skip()
		return
	}
	from.array(maxQuotas, func() { a.readQuota(from) })
}

// readQuota refuses a quota that lacks a number: what is not told is not 0.
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
