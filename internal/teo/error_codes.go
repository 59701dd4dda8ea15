package teo

import "strings"

// codes are the known error codes of EdgeOne; "X.*" is every code below X. The first
// match counts. A code that is not in the list is Ambiguous. If unknown refusals counted
// as certain, callers would submit URLs twice, or give up on URLs that EdgeOne could
// prefetch.
//
// The API pages of the actions document their codes. The list of error codes in the
// reference documents the codes of all actions under "Common Error Codes".
var codes = []struct {
	code string
	kind Kind
	zone bool // Denied concerns the zone, not the whole account
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
	// The zone's plan does not include what the call asks for, such as a type of purge. It is
	// no fault of a target, so no smaller call would do better.
	{code: codePlanLacking, kind: Denied, zone: true},
	// The API pages of calls that start jobs do not have this code, so it is certain only for
	// reads; see classify.
	{code: codeOperationDenied, kind: Ambiguous, zone: true},

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
	codeDailyQuota       = "LimitExceeded.DailyQuota"
	codeBatchQuota       = "LimitExceeded.BatchQuota"
	codePlanLacking      = "LimitExceeded.PackNotAllow"
	codeOperationDenied  = "OperationDenied"
	codeDomainNotFound   = "InvalidParameter.DomainNotFound"
	codeSignatureExpire  = "AuthFailure.SignatureExpire"
	codeSecretIDNotFound = "AuthFailure.SecretIdNotFound"
	codeTokenFailure     = "AuthFailure.TokenFailure"
	codeRequestSize      = "RequestSizeLimitExceeded"
)

// classify is the only place that decides the kind of a failure. The code is "" for a
// request that was sent and got no usable answer. A read-only call is never Ambiguous: it
// has no effect, so it can be sent again.
func classify(action, code string) Kind {
	kind, _ := lookUpCode(code)
	switch {
	case kind != Ambiguous || isCreate(action):
		return kind
	case code == codeOperationDenied:
		return Denied
	}
	return Unavailable
}

// lookUpCode returns the kind of a code, and whether a denial concerns only the zone.
func lookUpCode(code string) (kind Kind, zone bool) {
	for _, c := range codes {
		family, isFamily := strings.CutSuffix(c.code, "*")
		if c.code == code || isFamily && strings.HasPrefix(code, family) {
			return c.kind, c.zone
		}
	}
	return Ambiguous, false
}
