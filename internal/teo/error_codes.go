package teo

import "strings"

// codes is what is known of EdgeOne's error codes; "X.*" is every code below X.
// The first match counts. A code that is not here is Ambiguous: to take an
// unknown refusal for certain would submit twice, or give up on a URL that
// could be had.
//
// The codes of the three actions are on their API pages, those that any action
// may answer under "Common Error Codes" in the reference's list of error codes.
var codes = []struct {
	code string
	kind Kind
	zone bool // Denied concerns the zone, not the whole account
}{
	{code: "RequestLimitExceeded", kind: Throttled},
	{code: "RequestLimitExceeded.*", kind: Throttled},
	{code: "LimitExceeded.RateLimitExceeded", kind: Throttled},

	{code: codeDailyQuota, kind: Exhausted},

	{code: "AuthFailure.UnauthorizedOperation", kind: Denied, zone: true}, // CAM says no, to this resource
	{code: "AuthFailure", kind: Denied},
	{code: "AuthFailure.*", kind: Denied},
	{code: "UnauthorizedOperation", kind: Denied, zone: true},
	{code: "UnauthorizedOperation.CamUnauthorized", kind: Denied, zone: true},
	{code: "UnauthorizedOperation.NoPermission", kind: Denied, zone: true},
	{code: "UnauthorizedOperation.DomainEmpty", kind: Denied, zone: true},
	{code: "UnauthorizedOperation.Unknown", kind: Ambiguous}, // "backend server unknown error", whatever its name
	{code: "InvalidParameter.ZoneNotFound", kind: Denied, zone: true},
	{code: "InvalidParameterValue.ZoneNotFound", kind: Denied, zone: true},
	{code: "ResourceNotFound", kind: Denied, zone: true},
	{code: "ResourceNotFound.*", kind: Denied, zone: true},
	{code: "ResourceUnavailable.ZoneNotFound", kind: Denied, zone: true},
	// The gateway's word on the address we call from and the endpoint we call.
	{code: "IpInBlacklist", kind: Denied},
	{code: "IpNotInWhitelist", kind: Denied},
	{code: "ActionOffline", kind: Denied},
	{code: "InvalidAction", kind: Denied},
	{code: "NoSuchProduct", kind: Denied},
	{code: "NoSuchVersion", kind: Denied},
	{code: "UnsupportedRegion", kind: Denied},

	{code: codeBatchQuota, kind: Rejected},
	{code: codeDomainNotFound, kind: Rejected},
	{code: "InvalidParameter.Target", kind: Rejected},
	{code: "InvalidParameter.TaskNotGenerated", kind: Rejected},
	{code: "InvalidParameter.ParameterError", kind: Rejected},
	{code: "InvalidParameter.UploadUrl", kind: Rejected},
	{code: "InvalidParameter", kind: Rejected},
	{code: "InvalidParameterValue", kind: Rejected},
	{code: "MissingParameter", kind: Rejected},
	{code: "UnknownParameter", kind: Rejected},
	{code: codeRequestSize, kind: Rejected},

	{code: "InternalError", kind: Ambiguous},
	{code: "InternalError.*", kind: Ambiguous},
	{code: "ServiceUnavailable", kind: Ambiguous},
}

const (
	codeDailyQuota      = "LimitExceeded.DailyQuota"
	codeBatchQuota      = "LimitExceeded.BatchQuota"
	codeDomainNotFound  = "InvalidParameter.DomainNotFound"
	codeSignatureExpire = "AuthFailure.SignatureExpire"
	codeRequestSize     = "RequestSizeLimitExceeded"
)

// classify is the one place that decides what a failure means. The code is ""
// for a request that was sent and got no usable answer. A look-up is never
// Ambiguous: it has no effect, so it can simply be sent again.
func classify(action, code string) Kind {
	kind, _ := lookUpCode(code)
	if kind == Ambiguous && action != actionCreate {
		return Unavailable
	}
	return kind
}

func lookUpCode(code string) (kind Kind, zone bool) {
	for _, c := range codes {
		family, isFamily := strings.CutSuffix(c.code, "*")
		if c.code == code || isFamily && strings.HasPrefix(code, family) {
			return c.kind, c.zone
		}
	}
	return Ambiguous, false
}
