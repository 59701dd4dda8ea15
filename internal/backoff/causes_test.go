package backoff

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestACauseOfManyTasksNamesNoneOfThem(t *testing.T) {
	for _, port := range []int{1, 2} {
		reset := &net.OpError{Op: "read", Net: "tcp", Addr: &net.TCPAddr{IP: net.IPv4(10, 96, 0, 1), Port: port}, Err: errors.New("connection reset by peer")}
		failed := &url.Error{Op: "Put", URL: "https://10.96.0.1/apis/x/namespaces/team-a/prefetchtasks/launch/status", Err: reset}
		const want = "the request to the Kubernetes API failed: connection reset by peer"
		if got := PlanWait(fmt.Errorf("%w: %w", ErrNotClaimed, failed), 1, time.Minute).Message; !strings.HasSuffix(got, want) || strings.Contains(got, "team-a") {
			t.Errorf("the message is %q, want it to end with %q", got, want)
		}
	}
}
