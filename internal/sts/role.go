package sts

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
)

// WebIdentity is a role that the holder of a token of an OIDC provider may assume, such
// as a pod with a ServiceAccount token.
type WebIdentity struct {
	RoleARN    string
	ProviderID string // the name of the identity provider in CAM
	TokenFile  string // read at every use, because the kubelet rotates the token
}

// AssumedRole is a role that the holder of other keys may assume.
type AssumedRole struct {
	RoleARN    string
	ExternalID string
	Duration   time.Duration // the default is 2 h
}

// The limits of Duration. Keys with a shorter lifetime would be refreshed all the time;
// STS issues none with a longer one.
const (
	MinDuration = 15 * time.Minute
	MaxDuration = 12 * time.Hour
)

var (
	roleARN    = regexp.MustCompile(`^qcs::cam::uin/[0-9]{1,20}:(roleName|role)/[\w+=,.@/-]{1,256}$`)
	providerID = regexp.MustCompile(`^[\w+=,.@-]{1,128}$`)
	externalID = regexp.MustCompile(`^[\w+=,.@:/-]{2,128}$`)
)

// arnProblem returns what is wrong with a role ARN, or nil.
func arnProblem(arn string) error {
	if !roleARN.MatchString(arn) {
		return fmt.Errorf("%q is not the ARN of a role; it looks like qcs::cam::uin/100000000001:roleName/prefetch", arn)
	}
	return nil
}

// Validate returns what is wrong with the identity, or nil. It does not read the token.
func (w WebIdentity) Validate() error {
	switch {
	case arnProblem(w.RoleARN) != nil:
		return arnProblem(w.RoleARN)
	case w.ValidateProvider() != nil:
		return w.ValidateProvider()
	case w.TokenFile == "":
		return errors.New("the role needs a file with a web identity token")
	}
	return nil
}

// ValidateProvider returns what is wrong with the provider ID, or nil.
func (w WebIdentity) ValidateProvider() error {
	if w.ProviderID != "" && !providerID.MatchString(w.ProviderID) {
		return fmt.Errorf("%q is not the name of an identity provider in CAM", w.ProviderID)
	}
	return nil
}

// Validate returns what is wrong with the role, or nil.
func (r AssumedRole) Validate() error {
	switch {
	case arnProblem(r.RoleARN) != nil:
		return arnProblem(r.RoleARN)
	case r.ExternalID != "" && !externalID.MatchString(r.ExternalID):
		return errors.New("an external ID has 2 to 128 letters, digits and _+=,.@:/-")
	case r.Duration != 0 && (r.Duration < MinDuration || r.Duration > MaxDuration || r.Duration%time.Second != 0):
		return fmt.Errorf("the duration is %s; it must be whole seconds from %s to %s", r.Duration, MinDuration, MaxDuration)
	}
	return nil
}

// duration returns the Duration, or its default.
func (r AssumedRole) duration() time.Duration {
	if r.Duration == 0 {
		return defaultDuration
	}
	return r.Duration
}

// maxToken bounds a token in bytes. A ServiceAccount token has about 1,200.
const maxToken = 32 << 10

// mountToken is the advice if there is no token.
const mountToken = "mount a projected ServiceAccount token there"

// readToken reads the token. The error names the file and contains nothing of its content.
func (w WebIdentity) readToken() (string, error) {
	file, err := os.Open(w.TokenFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", noToken("file "+w.TokenFile+" does not exist", mountToken, nil)
	case err != nil:
		return "", noToken("file cannot be read", "", err)
	}
	defer func() { _ = file.Close() }()
	content, err := io.ReadAll(io.LimitReader(file, maxToken+1))
	if err != nil {
		return "", noToken("file cannot be read", "", err)
	}
	token := strings.TrimSpace(string(content))
	switch {
	case token == "":
		return "", noToken("file "+w.TokenFile+" is empty", mountToken, nil)
	case len(content) > maxToken || strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", noToken("file "+w.TokenFile+" contains something else", mountToken, nil)
	}
	return token, nil
}

// EndpointFor returns the endpoint of STS for the site that an endpoint of EdgeOne belongs
// to, or "" if that endpoint is not one of Tencent Cloud's.
func EndpointFor(edgeOne string) string {
	u, err := url.Parse(edgeOne)
	if err != nil {
		return ""
	}
	host, ok := strings.CutSuffix(strings.ToLower(u.Hostname()), ".tencentcloudapi.com")
	switch {
	case !ok || u.Scheme != "https":
		return ""
	case strings.HasSuffix(host, ".intl") || strings.Contains(host, ".intl."):
		return "https://sts.intl.tencentcloudapi.com"
	case strings.HasSuffix(host, ".internal") || strings.HasPrefix(host, "internal."):
		return "https://sts.internal.tencentcloudapi.com"
	}
	return "https://sts.tencentcloudapi.com"
}

// Claims are what a web identity token says about itself. They are not verified.
type Claims struct {
	Issuer, Subject string
	Audience        []string
	Expires         time.Time
}

// ReadClaims returns the claims of the token in the file. They are no secrets.
func (w WebIdentity) ReadClaims() (Claims, error) {
	token, err := w.readToken()
	if err != nil {
		return Claims{}, err
	}
	_, rest, _ := strings.Cut(token, ".")
	payload, _, _ := strings.Cut(rest, ".")
	text, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return Claims{}, fmt.Errorf("%w: file %s contains no JWT", ErrToken, w.TokenFile)
	}
	var claims struct {
		Issuer   string          `json:"iss"`
		Subject  string          `json:"sub"`
		Audience json.RawMessage `json:"aud"`
		Expires  int64           `json:"exp"`
	}
	if json.Unmarshal(text, &claims) != nil {
		return Claims{}, fmt.Errorf("%w: file %s contains no JWT", ErrToken, w.TokenFile)
	}
	audience := []string{""}
	if json.Unmarshal(claims.Audience, &audience[0]) != nil && json.Unmarshal(claims.Audience, &audience) != nil {
		audience = nil
	}
	return Claims{claims.Issuer, claims.Subject, audience, time.Unix(claims.Expires, 0)}, nil
}
