package queue

import (
	"encoding/json"
	"net/textproto"
	"slices"
	"strconv"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// BatchKey is what all targets of one call have in common.
type BatchKey struct {
	ZoneID        string
	Edge          bool
	MediaSegments bool
	Encode        string // EncodeUrl as "true" or "false", "" to leave it out
	headers       string // in canonical form, so that lanes compare by ==
	// lost keeps tasks whose calls were lost among themselves: if something in
	// them makes calls fail, others do not share it.
	lost int32
	// apart is the namespace that alone uses the lane, as it is kept apart; "" if all
	// may.
	apart string
}

// IsSameIgnoringTenant says whether calls of two lanes fetch URLs in the same way.
func (l BatchKey) IsSameIgnoringTenant(other BatchKey) bool {
	l.lost, l.apart = other.lost, other.apart
	return l == other
}

// SharesZone says whether calls of two lanes may be for the same zone: zone * is all.
func (l BatchKey) SharesZone(other BatchKey) bool {
	return l.ZoneID == other.ZoneID || l.ZoneID == "*" || other.ZoneID == "*"
}

func batchKeyOf(task *v1alpha1.PrefetchTask) BatchKey {
	lane := BatchKey{
		ZoneID:        task.Spec.ZoneID,
		Edge:          taskstate.IsEdgeMode(task),
		MediaSegments: task.Spec.MediaSegments == v1alpha1.MediaSegmentsPrefetch,
	}
	if encode := task.Spec.EncodeURL; encode != nil {
		lane.Encode = strconv.FormatBool(*encode)
	}
	if len(task.Spec.Headers) > 0 {
		headers := slices.Clone(task.Spec.Headers)
		for i := range headers { // names that differ by case only are one header
			headers[i].Name = textproto.CanonicalMIMEHeaderKey(headers[i].Name)
		}
		slices.SortStableFunc(headers, taskstate.CompareHeaderNames)
		text, err := json.Marshal(headers)
		if err != nil {
			panic(err) // two strings each
		}
		lane.headers = string(text)
	}
	if !taskstate.IsNewRun(task) {
		lane.lost = min(task.Status.LostCalls, taskstate.MaxLostCalls)
	}
	return lane
}

// Headers are the headers that calls of the lane carry, sorted by name.
func (l BatchKey) Headers() []v1alpha1.HTTPHeader {
	var headers []v1alpha1.HTTPHeader
	if l.headers != "" {
		if err := json.Unmarshal([]byte(l.headers), &headers); err != nil {
			panic(err) // batchKeyOf wrote it
		}
	}
	return headers
}

// EncodeURL is the value of EncodeUrl that calls of the lane carry, nil for none.
func (l BatchKey) EncodeURL() *bool {
	if l.Encode == "" {
		return nil
	}
	encode := l.Encode == "true"
	return &encode
}

// isPlain says whether nothing but zone and mode can be refused of a lane.
func (l BatchKey) isPlain() bool { return l.headers == "" && !l.MediaSegments }
