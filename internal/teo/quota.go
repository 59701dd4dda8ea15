package teo

import "context"

// Quota is how many targets of one type a zone may submit. A DailyAvailable of 0 means
// that today's quota is used up.
type Quota struct {
	Batch          int // per call
	Daily          int // per day
	DailyAvailable int // left of today's quota
}

// IsZero says whether the zone's plan does not include the type: no call may have a
// target, or no day has a quota.
func (q Quota) IsZero() bool { return q.Batch <= 0 || q.Daily <= 0 }

// ContentQuota is what a zone may prefetch and purge.
type ContentQuota struct {
	// Prefetch is the quota of prefetch by URL in the default mode. EdgeOne does not report
	// the quota of the edge mode.
	Prefetch Quota
	// Purge has the quotas of purges by type. A type that is missing is one of which EdgeOne
	// does not report the quota; calls may still have one.
	Purge map[string]Quota
}

// DescribeContentQuota reads the quotas of a zone. If EdgeOne reports no quota of
// prefetch by URL, or a quota of 0, the error wraps ErrNoPrefetchQuota; the quotas of
// purges are then valid, and no other field. Without an error, Prefetch is not zero.
func (c *Client) DescribeContentQuota(ctx context.Context, creds Credentials, zoneID string) (ContentQuota, error) {
	in := struct {
		ZoneID string `json:"ZoneId"`
	}{zoneID}
	var out *quotaAnswer
	err := c.lookUp(ctx, creds, ActionDescribeContentQuota, in, func() content {
		out = &quotaAnswer{purge: map[string]Quota{}}
		return out
	})
	if err != nil {
		return ContentQuota{}, err
	}
	cause := ErrNoPrefetchQuota
	switch {
	case out.prefetch == nil:
	case out.prefetch.IsZero():
		cause = ErrZeroQuota
	default:
		return ContentQuota{Prefetch: *out.prefetch, Purge: out.purge}, nil
	}
	return ContentQuota{Purge: out.purge}, &Error{
		Action: ActionDescribeContentQuota, Kind: Rejected, Message: ErrNoPrefetchQuota.Error(), RequestID: out.requestID, Err: cause,
	}
}

// maxQuotas bounds the number of quotas in a list of an answer. EdgeOne has fewer types.
const maxQuotas = 64

// quotaAnswer reads the quotas of the types that the client can submit, and skips others.
type quotaAnswer struct {
	prefetch  *Quota // nil if EdgeOne reports none
	purge     map[string]Quota
	requestID string
}

func (a *quotaAnswer) read(field string, from *jsonReader) {
	switch field {
	case "PrefetchQuota":
		from.array(maxQuotas, func() {
			kind, quota := readQuota(from)
			switch {
			case kind != TypePrefetchURL:
			case quota == nil:
				from.malformed("a quota without its numbers")
			default:
				a.prefetch = quota
			}
		})
	case "PurgeQuota":
		from.array(maxQuotas, func() {
			if kind, quota := readQuota(from); quota != nil && isPurgeType(kind) {
				a.purge[kind] = *quota
			}
		})
	default:
		from.skip()
	}
}

// readQuota reads the quota of one type. It is nil if a number is missing, because a
// missing number is not 0.
func readQuota(from *jsonReader) (kind string, quota *Quota) {
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
	if batch == nil || daily == nil || available == nil {
		return kind, nil
	}
	return kind, &Quota{Batch: *batch, Daily: *daily, DailyAvailable: max(*available, 0)}
}

// problem accepts every answer, and keeps its request ID.
func (a *quotaAnswer) problem(answer response) error {
	a.requestID = answer.requestID
	return nil
}
