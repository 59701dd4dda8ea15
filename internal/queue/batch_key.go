package queue

import (
	"encoding/json"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// BatchKey identifies a lane. It contains everything that the targets of one call must
// have in common.
type BatchKey struct {
	ZoneID string
	// PurgeType and PurgeMethod are set in the queue of purges. The other fields up to
	// headers are not.
	PurgeType     v1alpha1.PurgeType
	PurgeMethod   v1alpha1.PurgeMethod
	domains       string // the hosts that a purge of cache tags is about, joined by commas
	Edge          bool
	MediaSegments bool
	Encode        string // EncodeUrl as "true" or "false"; "" omits the parameter
	headers       string // canonical JSON, so that == compares lanes
	// lost is the number of lost calls in the task's status, at most
	// taskstate.MaxLostCalls. Tasks with lost calls share calls only with each other. If
	// one of them makes calls fail, other tasks are not affected.
	lost int32
	// apart is the namespace that has the lane to itself because it is separated from
	// other namespaces. It is "" if all namespaces share the lane.
	apart string
}

// IsSameIgnoringTenant reports whether calls of two lanes fetch URLs in the same way. It
// ignores lost calls and the separation of namespaces.
func (l BatchKey) IsSameIgnoringTenant(other BatchKey) bool {
	l.lost, l.apart = other.lost, other.apart
	return l == other
}

// SharesZone reports whether calls of two lanes may affect the same zone. Zone * covers
// all zones.
func (l BatchKey) SharesZone(other BatchKey) bool {
	return l.ZoneID == other.ZoneID || l.ZoneID == "*" || other.ZoneID == "*"
}

// batchKeyOf returns the lane of a task. It ignores the order of the headers and the case
// of their names. A task that starts a new run has no lost calls.
func (q *Queue) batchKeyOf(task *v1alpha1.PrefetchTask) BatchKey {
	lane := BatchKey{ZoneID: task.Spec.ZoneID}
	if q.limits.Kind == v1alpha1.JobPurge {
		lane.PurgeType, lane.PurgeMethod = task.Spec.Purge.Type, task.Spec.Purge.Method
		if lane.PurgeType == v1alpha1.PurgeCacheTag && lane.ZoneID == "*" { // one unknown host fails the whole purge
			lane.domains = strings.Join(taskstate.TargetHosts(task, maxDomains), ",")
		}
	} else {
		lane.setPrefetch(task)
	}
	if !taskstate.IsNewRun(task) {
		lane.lost = min(task.Status.LostCalls, taskstate.MaxLostCalls)
	}
	return lane
}

// setPrefetch sets what the prefetches of a call have in common.
func (l *BatchKey) setPrefetch(task *v1alpha1.PrefetchTask) {
	l.Edge = taskstate.IsEdgeMode(task)
	l.MediaSegments = task.Spec.MediaSegments == v1alpha1.MediaSegmentsPrefetch
	if encode := task.Spec.EncodeURL; encode != nil {
		l.Encode = strconv.FormatBool(*encode)
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
		l.headers = string(text)
	}
}

// maxDomains is how many hosts a purge of cache tags names at most. With more, it names none.
const maxDomains = 100

// Domains returns the hosts that a purge of cache tags in all zones is about: those of the targets of
// its tasks. In one zone, it is about all of its hosts.
func (l BatchKey) Domains() []string {
	if l.domains == "" {
		return nil
	}
	return strings.Split(l.domains, ",")
}

// mode returns what EdgeOne meters calls of the lane by.
func (l BatchKey) mode() zoneMode { return zoneMode{l.ZoneID, l.Edge, l.PurgeType} }

// Headers returns the headers of the lane's calls, sorted by name.
func (l BatchKey) Headers() []v1alpha1.HTTPHeader {
	var headers []v1alpha1.HTTPHeader
	if l.headers != "" {
		if err := json.Unmarshal([]byte(l.headers), &headers); err != nil {
			panic(err) // batchKeyOf wrote it
		}
	}
	return headers
}

// EncodeURL returns the value of EncodeUrl in the lane's calls. It returns nil if the
// calls omit the parameter.
func (l BatchKey) EncodeURL() *bool {
	if l.Encode == "" {
		return nil
	}
	encode := l.Encode == "true"
	return &encode
}

// isPlain reports whether the lane's calls have neither headers nor media segments. If
// EdgeOne denies such a call, the reason can only be the zone or the mode.
func (l BatchKey) isPlain() bool { return l.headers == "" && !l.MediaSegments }
