package teo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"unicode/utf8"
)

var quietLog = log.New(io.Discard, "", 0)

func TestCodes(t *testing.T) {
	const account, zone = true, false
	rows := []struct {
		code    string
		kind    Kind
		account bool
	}{
		{"RequestLimitExceeded", Throttled, false},
		{"RequestLimitExceeded.UinLimitExceeded", Throttled, false},
		{"RequestLimitExceeded.IPLimitExceeded", Throttled, false},
		{"RequestLimitExceeded.GlobalRegionUinLimitExceeded", Throttled, false},
		{"LimitExceeded.RateLimitExceeded", Throttled, false},
		{"LimitExceeded.DailyQuota", Exhausted, false},
		{"LimitExceeded.BatchQuota", Rejected, false},
		{"LimitExceeded.PackNotAllow", Denied, zone},
		{"LimitExceeded", Ambiguous, false},
		{"LimitExceeded.Security", Ambiguous, false},
		{"AuthFailure", Denied, account},
		{"AuthFailure.SignatureExpire", Denied, account},
		{"AuthFailure.SignatureFailure", Denied, account},
		{"AuthFailure.SecretIdNotFound", Denied, account},
		{"AuthFailure.InvalidSecretId", Denied, account},
		{"AuthFailure.TokenFailure", Denied, account},
		{"AuthFailure.SomethingNew", Denied, account},
		{"AuthFailure.UnauthorizedOperation", Denied, zone},
		{"UnauthorizedOperation", Denied, zone},
		{"UnauthorizedOperation.CamUnauthorized", Denied, zone},
		{"UnauthorizedOperation.NoPermission", Denied, zone},
		{"UnauthorizedOperation.DomainEmpty", Denied, zone},
		{"UnauthorizedOperation.Unknown", Ambiguous, false},
		{"UnauthorizedOperation.SomethingNew", Ambiguous, false},
		{"InvalidParameter.ZoneNotFound", Denied, zone},
		{"InvalidParameterValue.ZoneNotFound", Denied, zone},
		{"ResourceNotFound", Denied, zone},
		{"ResourceNotFound.ZoneNotFound", Denied, zone},
		{"ResourceUnavailable.ZoneNotFound", Denied, zone},
		{"ResourceUnavailable", Ambiguous, false},
		{"IpInBlacklist", Denied, account},
		{"IpNotInWhitelist", Denied, account},
		{"ActionOffline", Denied, account},
		{"InvalidAction", Denied, account},
		{"NoSuchProduct", Denied, account},
		{"NoSuchVersion", Denied, account},
		{"UnsupportedRegion", Denied, account},
		{"InvalidParameter", Rejected, false},
		{"InvalidParameter.Target", Rejected, false},
		{"InvalidParameter.TaskNotGenerated", Rejected, false},
		{"InvalidParameter.DomainNotFound", Rejected, false},
		{"InvalidParameter.ParameterError", Rejected, false},
		{"InvalidParameter.UploadUrl", Rejected, false},
		{"InvalidParameter.SomethingNew", Ambiguous, false},
		{"InvalidParameterValue", Rejected, false},
		{"MissingParameter", Rejected, false},
		{"UnknownParameter", Rejected, false},
		{"RequestSizeLimitExceeded", Rejected, false},
		{"ResponseSizeLimitExceeded", Ambiguous, false},
		{"InternalError", Ambiguous, false},
		{"InternalError.BackendError", Ambiguous, false},
		{"InternalError.DomainConfig", Ambiguous, false},
		{"InternalError.FailedToGenerateUrl", Ambiguous, false},
		{"InternalError.QuotaSystem", Ambiguous, false},
		{"InternalError.ProxyServer", Ambiguous, false},
		{"ServiceUnavailable", Ambiguous, false},
		{"FailedOperation", Ambiguous, false},
		{"OperationDenied", Ambiguous, false},
		{"OperationDenied.SomethingNew", Ambiguous, false},
		{"requestlimitexceeded", Ambiguous, false},
		{"RequestLimitExceededButNot", Ambiguous, false},
		{"AuthFailureButNot", Ambiguous, false},
		{"", Ambiguous, false},
		{"SomethingNew", Ambiguous, false},
	}
	tested := map[string]bool{}
	for _, tt := range rows {
		t.Run(tt.code, func(t *testing.T) {
			for _, action := range actions {
				want := tt.kind
				switch {
				case strings.HasPrefix(action, "Create") || want != Ambiguous:
				case tt.code == "OperationDenied":
					want = Denied
				default:
					want = Unavailable
				}
				err := fmt.Errorf("wrapped: %w", refusal(action, tt.code, "m", "r", 200))
				if KindOf(err) != want || DeniedAccount(err) != tt.account || Code(err) != tt.code {
					t.Errorf("%s: %s, account %v", action, KindOf(err), DeniedAccount(err))
				}
			}
			for i, row := range codes {
				family, ok := strings.CutSuffix(row.code, "*")
				if row.code == tt.code || ok && strings.HasPrefix(tt.code, family) {
					tested[codes[i].code] = true
				}
			}
		})
	}
	for _, row := range codes {
		if !tested[row.code] {
			t.Errorf("%s is in the table and not in the test", row.code)
		}
	}
}

func TestHelpersGoByTheCode(t *testing.T) {
	for code, is := range map[string]func(error) bool{
		"LimitExceeded.BatchQuota": IsBatchQuota, "LimitExceeded.PackNotAllow": IsPlanLacking, "InvalidParameter.DomainNotFound": IsDomainNotFound,
		"AuthFailure.SignatureExpire": IsSignatureExpire,
	} {
		if !is(fmt.Errorf("wrapped: %w", &Error{Code: code})) || is(&Error{Code: "other"}) || is(errors.New(code)) || is(nil) {
			t.Errorf("%s", code)
		}
	}
}

func TestErrorsThatAreNotOurs(t *testing.T) {
	if KindOf(nil) != "" || Message(nil) != "" || Code(nil) != "" || DeniedAccount(nil) {
		t.Error("no error is something")
	}
	err := errors.New("10.0.0.1:80 broke")
	if KindOf(err) != Ambiguous || Code(err) != "" || Message(err) != "the call failed" {
		t.Errorf("%s, %q", KindOf(err), Message(err))
	}
}

func TestMessagesAreTheSameEachTime(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		a, b       string
	}{
		{"the count in a throttled answer",
			"C: Your current request times equals to … in a second, which exceeds the frequency limit … for a second.",
			"Your current request times equals to `21` in a second, which exceeds the frequency limit `20` for a second.",
			"Your current request times equals to `9` in a second, which exceeds the frequency limit `20` for a second."},
		{"the answer's own request ID", "C: no permission [request id:…]", "no permission [request id:r-1]", "no permission [request id:r-2]"},
		{"another request ID", "C: see …", "see 46eaa57d-0000-4e1b-9a3b-0d451b8b79c6", "see ed93f3cb-f35e-473f-b9f3-0d451b8b79c6"},
		{"times", "C: at …, stamp …", "at 2026-01-02T03:04:05Z, stamp 1551113065", "at 2026-01-02 03:04:05.123, stamp 1751113065"},
		{"addresses", "C: from …", "from 10.0.0.1", "from 10.0.0.27:4711"},
		{"but not the numbers that matter", "C: zone-2o1t at most 2000 URLs, depth 3", "zone-2o1t at most 2000 URLs, depth 3",
			"zone-2o1t at most 2000 URLs, depth 3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for i, text := range []string{tt.a, tt.b} {
				if got := Message(&Error{Code: "C", Message: text, RequestID: fmt.Sprintf("r-%d", i+1)}); got != tt.want {
					t.Errorf("got %q, want %q", got, tt.want)
				}
			}
		})
	}
	if got := Message(&Error{Code: "C", Message: strings.Repeat("长", 1000)}); len(got) > maxMessage+10 || !utf8.ValidString(got) {
		t.Errorf("%d bytes, %q", len(got), got)
	}
}

func TestCausesInWords(t *testing.T) {
	for want, cause := range map[string]error{
		"cancelled":             context.Canceled,
		"timed out":             &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded},
		"connection refused":    &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)},
		"connection reset":      &net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)},
		"connection closed":     io.ErrUnexpectedEOF,
		"the connection failed": errors.New("malformed HTTP response"),
	} {
		if got := Message(noAnswer(ActionCreatePrefetchTask, sentAll, cause, redactor{})); got != "no answer: "+want {
			t.Errorf("%v: %q", cause, got)
		}
	}
}

func TestErrorTexts(t *testing.T) {
	for want, err := range map[string]*Error{
		"CreatePrefetchTask: InternalError: sorry (request r-1)": refusal(ActionCreatePrefetchTask, "InternalError",
			"sorry", "r-1", 200),
		"CreatePrefetchTask: not sent completely: connection closed: the connection ended in the middle of the request: EOF": noAnswer(
			ActionCreatePrefetchTask, cutOff, io.EOF, redactor{}),
		"CreatePrefetchTask: the answer is not one of EdgeOne's: the connection ended in the middle of the request (HTTP 413)": uselessAnswer(
			ActionCreatePrefetchTask, cutOff, "", http.StatusRequestEntityTooLarge, nil),
		"CreatePrefetchTask: no answer: connection closed: EOF": noAnswer(ActionCreatePrefetchTask, sentAll, io.EOF, redactor{}),
		"CreatePrefetchTask: not sent: signed too long ago to be sent": {Action: ActionCreatePrefetchTask, Message: "not sent",
			Err: ErrTooOld},
		"CreatePrefetchTask: the answer is not one of EdgeOne's (HTTP 502)": uselessAnswer(ActionCreatePrefetchTask, sentAll, "",
			http.StatusBadGateway, nil),
	} {
		if err.Error() != want {
			t.Errorf("got %q, want %q", err, want)
		}
	}
}
