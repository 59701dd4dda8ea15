package follow

import (
	"errors"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/backoff"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// unreadCause returns the cause for which EdgeOne's history cannot be read, and whether
// the refusal lasts until a user acts or the request changes. Other errors, such as a
// failed connection, predict nothing about the next read.
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

// explainUnread returns a message for a status: known if it is not empty, and otherwise
// the text of the error.
func explainUnread(err error, known string) string {
	if known != "" {
		return known
	}
	if answer := (*teo.Error)(nil); errors.As(err, &answer) {
		return teo.Message(err)
	}
	return taskstate.UpperFirst(err.Error())
}

// unreadStep is what the status reports about a run whose outcomes cannot be read.
type unreadStep int

const (
	sayNothing   unreadStep = iota // report nothing: the trouble may end in a moment
	sayUnread                      // the run continues: Ready is False and Stalled is True
	endUnread                      // the run ends with unknown outcomes: Ready is Unknown
	forgetUnread                   // the run has ended, and its outcomes stay unknown
)

// unreadState describes a run with a job that EdgeOne refuses to show.
type unreadState struct {
	isHandedOver bool          // every target is handed over, and no call is open
	isOver       bool          // the run has ended
	isBeyond     bool          // EdgeOne's history no longer shows any of its jobs
	isRead       bool          // the last read of each of its jobs succeeded
	refused      time.Duration // how long EdgeOne has refused every read of one of its jobs
	said         time.Duration // how long the status has reported the refusal; 0 if it does not
}

// nextStep decides what the status reports. The run ends only after the status has
// reported the refusal for longer than deadline. The status recovers as soon as the
// outcomes can be read.
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
