package controller

import (
	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
)

// tooSoon is what a task says that waits for its rate.
var tooSoon = taskstate.Cause{
	Reason: v1alpha1.ReasonWaiting, Message: "Many runs started within a minute; the newest is submitted when 10 seconds have passed since the last one",
}
