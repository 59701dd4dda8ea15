package follow

import (
	"errors"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// unreadCause is why EdgeOne's history cannot be read: what to tell, and whether only a
// person can change that. Other trouble, such as a connection that fails, says nothing
// about the next look.
func unreadCause(err error, recheck time.Duration) (why taskstate.Cause, isRefused bool) {
	why = backoff.PlanWait(err, 1, recheck).Cause
	why.Message = explainUnread(err, why.Message)
	switch {
	case why.NeedsUser:
		return why, true
	case concernsOneJob(err):
		why.Reason = v1alpha1.ReasonNotFollowed
		return why, true
	}
	return why, false
}

// explainUnread puts an error into words for a status.
func explainUnread(err error, known string) string {
	if known != "" {
		return known
	}
	if answer := (*teo.Error)(nil); errors.As(err, &answer) {
		return teo.Message(err)
	}
	return taskstate.UpperFirst(err.Error())
}

// unreadStep is what the status says of a run whose outcomes cannot be read.
type unreadStep int

const (
	sayNothing   unreadStep = iota // it may be over in a moment
	sayUnread                      // the run continues: Ready is False, and it is Stalled
	endUnread                      // the run ends, and nobody knows how: Ready is Unknown
	forgetUnread                   // it has ended so, and nobody will know any more
)

// unreadState is what is known of a run of which EdgeOne refuses to show a job.
type unreadState struct {
	isHandedOver bool          // every target is, and no call is open
	isOver       bool          // it has ended already
	isBeyond     bool          // EdgeOne's history shows none of its jobs any more
	isRead       bool          // the last look at each of its jobs could read it
	refused      time.Duration // how long every look at one of its jobs has been refused
	said         time.Duration // how long the status has said so; 0 is not at all
}

// nextStep decides what to say. The run only ends if the status has said for as long as
// jobs may take that they cannot be read; it heals as soon as they can.
func (u unreadState) nextStep(recheck, deadline time.Duration) unreadStep {
	switch {
	case u.isOver && u.isBeyond:
		return forgetUnread
	case !u.isHandedOver || u.isOver:
		return sayNothing
	case u.said > deadline:
		return endUnread
	case u.said > 0 || u.refused >= 2*recheck:
		return sayUnread
	}
	return sayNothing
}
