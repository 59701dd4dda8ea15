package teo

import "strings"

// codes are the known error codes of EdgeOne; "X.*" is every code below X. The first
// match counts. A code that is not in the list is Ambiguous: to treat an unknown refusal
// as certain would submit URLs twice, or give up on URLs that EdgeOne could prefetch.
//
// The API pages of the three actions document their codes. The list of error codes in the
// reference documents the codes of all actions under "Common Error Codes".
var codes = []struct {
	code string
	kind Kind
	zone bool // Denied is about the zone, not the whole account
}{
	{code: "RequestLimitExceeded", kind: Throttled},
	{code: "RequestLimitExceeded.*", kind: Throttled},
	{code: "LimitExceeded.RateLimitExceeded", kind: Throttled},

	{code: codeDailyQuota, kind: Exhausted},

	{code: "AuthFailure.UnauthorizedOperation", kind: Denied, zone: true}, // CAM denies access to this resource
	{code: "AuthFailure", kind: Denied},
	{code: "AuthFailure.*", kind: Denied},
	{code: "UnauthorizedOperation", kind: Denied, zone: true},
	{code: "UnauthorizedOperation.CamUnauthorized", kind: Denied, zone: true},
	{code: "UnauthorizedOperation.NoPermission", kind: Denied, zone: true},
	{code: "UnauthorizedOperation.DomainEmpty", kind: Denied, zone: true},
	{code: "UnauthorizedOperation.Unknown", kind: Ambiguous}, // "backend server unknown error", despite the name of the code
	{code: "InvalidParameter.ZoneNotFound", kind: Denied, zone: true},
	{code: "InvalidParameterValue.ZoneNotFound", kind: Denied, zone: true},
	{code: "ResourceNotFound", kind: Denied, zone: true},
	{code: "ResourceNotFound.*", kind: Denied, zone: true},
	{code: "ResourceUnavailable.ZoneNotFound", kind: Denied, zone: true},
	// The gateway's refusals of the caller's address and of the called endpoint.
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

// classify alone decides what a failure means. The code is "" for a request that was sent
// and got no usable answer. A read-only call is never Ambiguous: it has no effect, so it
// can be sent again.
func classify(action, code string) Kind {
	kind, _ := lookUpCode(code)
	if kind == Ambiguous && action != actionCreate {
		return Unavailable
	}
	return kind
}

// lookUpCode returns the kind of a code, and whether a denial is about the zone only.
func lookUpCode(code string) (kind Kind, zone bool) {
	for _, c := range codes {
		family, isFamily := strings.CutSuffix(c.code, "*")
		if c.code == code || isFamily && strings.HasPrefix(code, family) {
			return c.kind, c.zone
		}
	}
	return Ambiguous, false
}
