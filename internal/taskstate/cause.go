package taskstate

import (
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// Cause describes why a task waits, in the terms of its conditions.
type Cause struct {
	Reason  string
	Message string
	// Advice is what a user can do about it, as a sentence; "" if there is nothing to say.
	// The condition Ready has the message alone.
	Advice string
	// Quota reports that EdgeOne's quota is the reason.
	Quota bool
	// NeedsUser reports that the cause persists until a user acts.
	NeedsUser bool
}

// QueuedCause is the cause of a task that waits for its turn only.
var QueuedCause = Cause{Reason: v1alpha1.ReasonWaiting, Message: QueuedMessage}

// FullMessage returns the message with the advice, for the condition Stalled and Events.
func (c Cause) FullMessage() string { return joinAdvice(c.Message, c.Advice) }

// joinAdvice appends advice to a message.
func joinAdvice(message, advice string) string {
	if advice == "" {
		return message
	}
	return strings.TrimSuffix(message, ".") + ". " + advice
}
