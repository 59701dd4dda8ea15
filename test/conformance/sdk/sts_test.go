package sdk

import (
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common"
	tcerrors "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/errors"
	tchttp "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/http"
	"github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/common/profile"
	sdk "github.com/tencentcloud/tencentcloud-sdk-go/tencentcloud/teo/v20220901"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts/ststest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

const (
	stsHost   = "sts.intl.tencentcloudapi.com"
	stsRole   = "qcs::cam::uin/100000000001:roleName/prefetch"
	stsAnswer = `{"Response":{"Credentials":{"Token":"t","TmpSecretId":"AKIDtemporary","TmpSecretKey":"k"},"ExpiredTime":9999999999,` +
		`"Expiration":"2286-11-20T17:46:39Z","RequestId":"r-1"}}`
)

// vendorSTS sends a call of STS with the vendor's common client, as its providers of role
// credentials do.
func vendorSTS(t *testing.T, creds common.CredentialIface, action string, skipSign bool, body []byte) *wire {
	t.Helper()
	var parameters map[string]any
	if err := json.Unmarshal(body, &parameters); err != nil {
		t.Fatal(err)
	}
	p := profile.NewClientProfile()
	p.HttpProfile.Endpoint = stsHost
	w := &wire{answer: stsAnswer}
	client := common.NewCommonClient(creds, "ap-guangzhou", p)
	client.WithHttpTransport(w)
	request := tchttp.NewCommonRequest("sts", "2018-08-13", action)
	request.SetSkipSign(skipSign)
	if err := request.SetActionParameters(parameters); err != nil {
		t.Fatal(err)
	}
	if err := client.Send(request, tchttp.NewCommonResponse()); err != nil {
		t.Fatal(err)
	}
	return w
}

// sameCall compares the headers and the body of two calls.
func sameCall(t *testing.T, mine, theirs *wire, headers ...string) {
	t.Helper()
	for _, name := range headers {
		if got, want := mine.req.Header.Get(name), theirs.req.Header.Get(name); got != want {
			t.Errorf("%s is %q, and the SDK's %q", name, got, want)
		}
	}
	if mine.req.URL.String() != theirs.req.URL.String() && mine.req.URL.String() != theirs.req.URL.String()+"/" {
		t.Errorf("the URL is %s, and the SDK's %s", mine.req.URL, theirs.req.URL)
	}
	var got, want any
	if json.Unmarshal(mine.body, &got) != nil || json.Unmarshal(theirs.body, &want) != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("the body is\n%s\nand the SDK's\n%s", mine.body, theirs.body)
	}
}

func stsClient(t *testing.T, w *wire) *sts.Client {
	t.Helper()
	client, err := sts.NewClient(teo.Options{Endpoint: "https://" + stsHost, Transport: w})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestBothAssumeARoleWithWebIdentityAlike(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("header.payload.signature\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	mine := &wire{answer: stsAnswer}
	keys, err := stsClient(t, mine).AssumeRoleWithWebIdentity(t.Context(), sts.WebIdentity{RoleARN: stsRole, ProviderID: "cls-1", TokenFile: file})
	if err != nil || keys.SecretID != "AKIDtemporary" || keys.SecretKey != "k" || keys.Token != "t" {
		t.Fatalf("%v", err)
	}
	// What the SDK's provider sends, by its source: these five parameters.
	var sent map[string]any
	if err := json.Unmarshal(mine.body, &sent); err != nil {
		t.Fatal(err)
	}
	if want := map[string]any{
		"ProviderId": "cls-1", "WebIdentityToken": "header.payload.signature", "RoleArn": stsRole,
		"RoleSessionName": "teo-prefetch-operator", "DurationSeconds": 7200.,
	}; !reflect.DeepEqual(sent, want) {
		t.Errorf("the body is %s", mine.body)
	}
	theirs := vendorSTS(t, nil, "AssumeRoleWithWebIdentity", true, mine.body)
	sameCall(t, mine, theirs, "Authorization", "X-TC-Action", "X-TC-Version", "X-TC-Region", "X-TC-Token")
}

func TestBothAssumeARoleAlike(t *testing.T) {
	for _, creds := range []teo.Credentials{
		{SecretID: "AKIDexample", SecretKey: "key"}, {SecretID: "AKIDtemporary", SecretKey: "key", Token: "token"},
	} {
		mine := &wire{answer: stsAnswer}
		role := sts.AssumedRole{RoleARN: stsRole, ExternalID: "shop-prod", Duration: time.Hour}
		if _, err := stsClient(t, mine).AssumeRole(t.Context(), creds, role); err != nil {
			t.Fatal(err)
		}
		theirs := vendorSTS(t, common.NewTokenCredential(creds.SecretID, creds.SecretKey, creds.Token), "AssumeRole", false, mine.body)
		sameCall(t, mine, theirs, "X-TC-Action", "X-TC-Version", "X-TC-Region", "X-TC-Token")
		if got, want := resign(t, mine.req, theirs, creds), theirs.req.Header.Get("Authorization"); got != want {
			t.Errorf("our signature of the SDK's call is\n%s\nand the SDK's\n%s", got, want)
		}
	}
}

// resign returns our Authorization header for the SDK's call: with its headers, its body
// and its time. It fails if the client itself does not sign with the service sts.
func resign(t *testing.T, mine *http.Request, theirs *wire, creds teo.Credentials) string {
	t.Helper()
	if !strings.Contains(mine.Header.Get("Authorization"), "/sts/tc3_request") {
		t.Errorf("our signature is %s", mine.Header.Get("Authorization"))
	}
	seconds, err := strconv.ParseInt(theirs.req.Header.Get("X-TC-Timestamp"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return teo.Authorization(creds, "sts", []teo.SignedHeader{
		{Name: "content-type", Value: theirs.req.Header.Get("Content-Type")}, {Name: "host", Value: stsHost},
	}, theirs.body, time.Unix(seconds, 0))
}

// The simulator judges the operator, so the SDK judges the simulator: with a token, and with
// the keys that it gets for it.
func TestTheSimulatorGivesTheSDKTheKeysOfRoles(t *testing.T) {
	issuer := ststest.NewIssuer(t)
	sim := simulator.New(issuer.Configure(simulator.Demo(), "demo"))
	defer sim.Close()
	call := func(creds common.CredentialIface, action string, skipSign bool, parameters map[string]any) (*common.Credential, error) {
		p := profile.NewClientProfile()
		p.HttpProfile.Endpoint = stsHost
		client := common.NewCommonClient(creds, "ap-guangzhou", p)
		client.WithHttpTransport(sim.RoundTripper())
		request := tchttp.NewCommonRequest("sts", "2018-08-13", action)
		request.SetSkipSign(skipSign)
		if err := request.SetActionParameters(parameters); err != nil {
			t.Fatal(err)
		}
		response := tchttp.NewCommonResponse()
		if err := client.Send(request, response); err != nil {
			return nil, err
		}
		var answer struct {
			Response struct {
				Credentials           struct{ Token, TmpSecretID, TmpSecretKey string }
				ExpiredTime           int64
				Expiration, RequestID string
			}
		}
		if err := json.Unmarshal(response.GetBody(), &answer); err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, answer.Response.Expiration)
		if err != nil || at.Unix() != answer.Response.ExpiredTime || answer.Response.RequestID == "" {
			t.Errorf("%s expires at %s or %d", action, answer.Response.Expiration, answer.Response.ExpiredTime)
		}
		keys := answer.Response.Credentials
		return common.NewTokenCredential(keys.TmpSecretID, keys.TmpSecretKey, keys.Token), nil
	}
	web := map[string]any{
		"ProviderId": ststest.ProviderID, "WebIdentityToken": issuer.Token(nil), "RoleArn": ststest.RoleARN, "RoleSessionName": "sdk", "DurationSeconds": 7200,
	}
	role, err := call(nil, "AssumeRoleWithWebIdentity", true, web)
	if err != nil {
		t.Fatal(err)
	}
	top := map[string]any{"RoleArn": ststest.OtherARN, "RoleSessionName": "sdk", "DurationSeconds": 900, "ExternalId": ststest.ExternalID}
	for _, caller := range []*common.Credential{role, common.NewCredential("AKIDdemo", "demo-secret-key")} {
		keys, err := call(caller, "AssumeRole", false, top)
		if err != nil {
			t.Fatal(err)
		}
		p := profile.NewClientProfile()
		p.HttpProfile.Endpoint = intl
		client, err := sdk.NewClient(keys, "", p)
		if err != nil {
			t.Fatal(err)
		}
		client.WithHttpTransport(sim.RoundTripper())
		request := sdk.NewDescribeContentQuotaRequest()
		request.ZoneId = common.StringPtr("zone-ajj243dwrew")
		if _, err := client.DescribeContentQuota(request); err != nil {
			t.Errorf("the keys of the role sign nothing: %v", err)
		}
	}
	web["WebIdentityToken"] = issuer.Token(map[string]any{"aud": "elsewhere"})
	top["ExternalId"] = "another"
	for code, call := range map[string]func() error{
		"InvalidParameter.WebIdentityTokenError": func() error { _, err := call(nil, "AssumeRoleWithWebIdentity", true, web); return err },
		"UnauthorizedOperation":                  func() error { _, err := call(role, "AssumeRole", false, top); return err },
	} {
		var refused *tcerrors.TencentCloudSDKError
		if err := call(); !errors.As(err, &refused) || refused.Code != code {
			t.Errorf("the SDK reports %v, want %s", err, code)
		}
	}
}
