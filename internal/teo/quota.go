package teo

import (
	"context"
	"encoding/json"
)

// Quota is what a zone may prefetch by URL, all in numbers of URLs.
type Quota struct {
	Batch          int // in one call
	Daily          int // in a day
	DailyAvailable int // left of today's
}

// DescribeContentQuota reads the quota of prefetching by URL in mode default;
// EdgeOne does not tell that of mode edge. A zone without such a quota gives
// an error that wraps ErrNoPrefetchQuota.
func (c *Client) DescribeContentQuota(ctx context.Context, creds Credentials, zoneID string) (Quota, error) {
	in := struct {
		ZoneID string `json:"ZoneId"`
	}{zoneID}
	var out struct {
		PrefetchQuota []struct {
			Type string
			Quota
		}
		RequestID string `json:"RequestId"`
	}
	err := c.lookUp(ctx, creds, ActionDescribeContentQuota, in, func(response []byte) error {
		return json.Unmarshal(response, &out)
	})
	if err != nil {
		return Quota{}, err
	}
	for _, q := range out.PrefetchQuota {
		if q.Type == "prefetch_url" {
			return Quota{Batch: max(q.Batch, 0), Daily: max(q.Daily, 0), DailyAvailable: max(q.DailyAvailable, 0)}, nil
		}
	}
	return Quota{}, &Error{Action: ActionDescribeContentQuota, Kind: Rejected, Message: ErrNoPrefetchQuota.Error(),
		RequestID: out.RequestID, Err: ErrNoPrefetchQuota}
}
