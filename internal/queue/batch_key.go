package queue

import (
	"encoding/json"
	"net/textproto"
	"slices"
	"strconv"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// BatchKey identifies a lane: it holds what all targets of one call have in common.
type BatchKey struct {
	ZoneID        string
	Edge          bool
	MediaSegments bool
	Encode        string // EncodeUrl as "true" or "false"; "" omits it
	headers       string // JSON in canonical form, so that == compares lanes
	// lost is the number of lost calls in the task's status. Tasks with lost calls share
	// calls only among themselves: if one of them makes calls fail, other tasks are not
	// affected.
	lost int32
	// apart is the only namespace that uses the lane, if that namespace is separated from
	// others; "" if all namespaces may use the lane.
	apart string
}

// IsSameIgnoringTenant says whether calls of two lanes fetch URLs in the same way. It
// ignores lost calls and the separation of namespaces.
func (l BatchKey) IsSameIgnoringTenant(other BatchKey) bool {
	l.lost, l.apart = other.lost, other.apart
	return l == other
}

// SharesZone says whether calls of two lanes may be for the same zone. Zone * covers all
// zones.
func (l BatchKey) SharesZone(other BatchKey) bool {
	return l.ZoneID == other.ZoneID || l.ZoneID == "*" || other.ZoneID == "*"
}

// batchKeyOf returns the lane of a task. The order of the headers and the case of their
// names do not matter. A new run starts without lost calls.
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
		for i := range headers { // names that differ only in case are the same header
			headers[i].Name = textproto.CanonicalMIMEHeaderKey(headers[i].Name)
		}
		slices.SortStableFunc(headers, taskstate.CompareHeaderNames)
		text, err := json.Marshal(headers)
		if err != nil {
			panic(err) // marshalling pairs of strings cannot fail
		}
		lane.headers = string(text)
	}
	if !taskstate.IsNewRun(task) {
		lane.lost = min(task.Status.LostCalls, taskstate.MaxLostCalls)
	}
	return lane
}

// Headers returns the headers that calls of the lane carry, sorted by name.
func (l BatchKey) Headers() []v1alpha1.HTTPHeader {
	var headers []v1alpha1.HTTPHeader
	if l.headers != "" {
		if err := json.Unmarshal([]byte(l.headers), &headers); err != nil {
			panic(err) // batchKeyOf wrote it
		}
	}
	return headers
}

// EncodeURL returns the value of EncodeUrl that calls of the lane carry, or nil to omit
// it.
func (l BatchKey) EncodeURL() *bool {
	if l.Encode == "" {
		return nil
	}
	encode := l.Encode == "true"
	return &encode
}

// isPlain says whether EdgeOne can refuse nothing about the lane except its zone and
// mode.
func (l BatchKey) isPlain() bool { return l.headers == "" && !l.MediaSegments }
