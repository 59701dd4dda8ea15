package controller

import (
	"cmp"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/queue"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// attributeFailure counts a failure and says whom it concerns and how often in a row that has
// failed. A failure that says nothing about what was asked for is the account's.
func (s *Submitter) attributeFailure(l *accountQueue, call *queue.Call, err error, now time.Time) (queue.Scope, int) {
	way := cmp.Or(teo.Code(err), "no answer")
	switch kind := teo.KindOf(err); {
	case call == nil:
	case kind == teo.Ambiguous:
		return l.queue.AttributeFailure(call, way, now)
	case kind == teo.Denied && !teo.DeniedAccount(err):
		return l.queue.AttributeDenial(call, way, now)
	}
	if call == nil || call.Planned.After(l.failedAt) {
		l.failures++
		l.failedAt = now
	}
	return queue.ScopeAccount, l.failures
}
