package credentials

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/simulator"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts/ststest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

const (
	ownNamespace = "teo-prefetch-system"
	demoZone     = "zone-ajj243dwrew"
	shopARN      = "qcs::cam::uin/100000000001:roleName/shop"
)

// demoKeys are the keys of the simulator's account.
var demoKeys = map[string][]byte{"secretId": []byte("AKIDdemo"), "secretKey": []byte("demo-secret-key")}

// world is a Reader with the simulated STS, metadata service and Secrets, and a client whose
// refused keys it hears of.
type world struct {
	t        *testing.T
	edgeOne  *simulator.Simulator
	metadata *ststest.Metadata
	issuer   *ststest.Issuer
	reader   *Reader
	teo      *teo.Client

	mu       sync.Mutex
	accounts map[string]*v1alpha1.EdgeOneAccount
	secrets  map[client.ObjectKey]map[string][]byte
	reads    []client.ObjectKey
	broken   error // the API server's answer to all reads
	observed map[string]int
}

// Get makes a world an API server that has Secrets only.
func (w *world) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reads = append(w.reads, key)
	data, ok := w.secrets[key]
	switch {
	case w.broken != nil:
		return w.broken
	case !ok:
		return apierrors.NewNotFound(corev1.Resource("secrets"), key.Name)
	}
	obj.(*corev1.Secret).Data = data
	return nil
}

func (w *world) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("nobody may list Secrets")
}

// inWorld runs f with virtual time. The token lasts for a day.
func inWorld(t *testing.T, change func(*simulator.Config), f func(*world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		issuer := ststest.NewIssuer(t)
		config := issuer.Configure(simulator.Demo(), "demo")
		if change != nil {
			change(&config)
		}
		w := &world{
			t: t, issuer: issuer, edgeOne: simulator.New(config), accounts: map[string]*v1alpha1.EdgeOneAccount{},
			secrets: map[client.ObjectKey]map[string][]byte{{Namespace: ownNamespace, Name: "keys"}: demoKeys}, observed: map[string]int{},
		}
		defer w.edgeOne.Close()
		w.metadata = &ststest.Metadata{Simulator: w.edgeOne, Account: "demo", Lifetime: time.Hour}
		client, err := sts.NewClient(teo.Options{Endpoint: "https://sts.intl.tencentcloudapi.com", Transport: w.edgeOne.RoundTripper()})
		w.must(err)
		token := issuer.WriteToken(issuer.Token(map[string]any{"exp": time.Now().Add(24 * time.Hour).Unix()}))
		w.reader = &Reader{
			Live: w, MaxAge: 30 * time.Second,
			Own: func() (teo.Credentials, error) {
				t.Error("the operator's own keys were read for an account")
				return teo.Credentials{SecretID: "AKIDdemo", SecretKey: "demo-secret-key"}, nil
			},
			Accounts: w.account,
			Identity: Identity{
				Context: t.Context(), Namespace: ownNamespace, STS: client, CVM: sts.NewCVM(sts.CVMOptions{Transport: w.metadata}),
				WebIdentity: sts.WebIdentity{ProviderID: ststest.ProviderID, TokenFile: token},
				Observe:     func(account string, _ time.Time, _ error) { w.observed[account]++ },
				Forget:      func(account string) { delete(w.observed, account) },
			},
		}
		w.teo, err = teo.NewClient(teo.Options{Transport: w.edgeOne.RoundTripper(), KeyRefused: w.reader.RefuseKey})
		w.must(err)
		f(w)
	})
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) account(name string) *v1alpha1.EdgeOneAccount {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.accounts[name]
}

// set changes the credentials of an account, as the account.Store does; nil deletes it.
func (w *world) set(name string, spec *v1alpha1.AccountCredentials) {
	w.mu.Lock()
	delete(w.accounts, name)
	if spec != nil {
		w.accounts[name] = &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.EdgeOneAccountSpec{Credentials: *spec}}
	}
	w.mu.Unlock()
	w.reader.OnAccountChange(name)
}

func (w *world) get(name string) (teo.Credentials, error) {
	return w.reader.GetCredentials(w.t.Context(), taskstate.AccountKey{Account: name})
}

// sign makes a call with the keys of an account, and returns the keys.
func (w *world) sign(name string) teo.Credentials {
	w.t.Helper()
	creds, err := w.get(name)
	w.must(err)
	if _, err := w.teo.DescribeContentQuota(w.t.Context(), creds, demoZone); err != nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	return creds
}

// calls counts the calls of an action of STS for a role, by the outcome.
func (w *world) calls(action string) (all, failed int) {
	for _, call := range w.edgeOne.Calls() {
		if call.Action == action {
			all++
			if call.Outcome != "OK" {
				failed++
			}
		}
	}
	return all, failed
}

// The sources of credentials, and the role on top.
var (
	bySecret = v1alpha1.AccountCredentials{SecretRef: v1alpha1.AccountSecretReference{Name: "keys"}}
	byToken  = v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: ststest.RoleARN}}
	byNode   = v1alpha1.AccountCredentials{CVMRole: v1alpha1.CVMRole{Name: ststest.CVMRole}}
	onTop    = v1alpha1.AssumeRole{RoleARN: ststest.OtherARN, ExternalID: ststest.ExternalID}
)

// with returns credentials with a role on top.
func with(source v1alpha1.AccountCredentials, role v1alpha1.AssumeRole) *v1alpha1.AccountCredentials {
	source.AssumeRole = role
	return &source
}

func TestTheKeysOfEachSourceSignTheCallsOfAnAccount(t *testing.T) {
	for name, c := range map[string]struct {
		spec      v1alpha1.AccountCredentials
		principal string
		isStatic  bool
	}{
		"secret":       {bySecret, "", true},
		"secret, role": {*with(bySecret, onTop), ststest.OtherARN, false},
		"token":        {byToken, ststest.RoleARN, false},
		"token, role":  {*with(byToken, onTop), ststest.OtherARN, false},
		"node":         {byNode, sts.CVMPrincipal(ststest.CVMRole), false},
		"node, role":   {*with(byNode, onTop), ststest.OtherARN, false},
		"own provider": {v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: ststest.RoleARN, ProviderID: ststest.ProviderID}}, ststest.RoleARN, false},
		"short-lived":  {*with(byToken, v1alpha1.AssumeRole{RoleARN: ststest.OtherARN, ExternalID: ststest.ExternalID, DurationSeconds: 900}), ststest.OtherARN, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				w.set("main", &c.spec)
				first := w.sign("main")
				if first.Principal != c.principal || (first.Token == "") != c.isStatic || first.Hash() != w.sign("main").Hash() {
					t.Errorf("the principal is %q", first.Principal)
				}
				for range 130 { // more than two hours: no call may fail
					time.Sleep(time.Minute)
					w.sign("main")
				}
				if last := w.sign("main"); (last == first) != c.isStatic || last.Hash() != first.Hash() {
					t.Errorf("the keys are refreshed: %t; the account is another one: %t", last != first, last.Hash() != first.Hash())
				}
				for _, key := range w.reads {
					if key != (client.ObjectKey{Namespace: ownNamespace, Name: "keys"}) {
						t.Errorf("Secret %s was read", key)
					}
				}
			})
		})
	}
}

func TestTwoAccountsHaveTheirOwnRolesAndLimiters(t *testing.T) {
	const otherZone = "zone-2x9examplea"
	inWorld(t, func(c *simulator.Config) {
		c.Roles[0].Zones = []string{demoZone}
		c.Roles = append(c.Roles, simulator.Role{ARN: shopARN, Account: "demo", Zones: []string{otherZone}, Trust: c.Roles[0].Trust})
	}, func(w *world) {
		w.set("main", &byToken)
		w.set("shop", &v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: shopARN}})
		main := w.sign("main")
		shop, err := w.get("shop")
		w.must(err)
		if main.Principal != ststest.RoleARN || shop.Principal != shopARN || main.Hash() == shop.Hash() {
			w.t.Errorf("the principals are %q and %q", main.Principal, shop.Principal)
		}
		if w.teo.Limiter(main, teo.ActionCreatePrefetchTask) == w.teo.Limiter(shop, teo.ActionCreatePrefetchTask) {
			w.t.Error("two roles share a limiter")
		}
		if _, err := w.teo.DescribeContentQuota(w.t.Context(), shop, otherZone); err != nil {
			w.t.Error(err)
		}
		if _, err := w.teo.DescribeContentQuota(w.t.Context(), shop, demoZone); teo.KindOf(err) != teo.Denied {
			w.t.Errorf("in the zone of the other account: %v", err)
		}
		if w.observed["main"] != 1 || w.observed["shop"] != 1 {
			w.t.Errorf("observed: %v", w.observed)
		}
	})
}

// chain is the role of an account on top of a role, with keys that expire after 30 minutes.
func chain(c *simulator.Config) {
	c.Roles[0].Lifetime, c.Roles[1].Lifetime = 30*time.Minute, 30*time.Minute
}

// STS fails for 20 minutes, from one minute after a refresh. The keys of the chain are
// refreshed after 20 minutes.
func TestTwoHoursOfAChainThatExpiresAndAnSTSThatFails(t *testing.T) {
	for _, action := range []string{sts.ActionAssumeRoleWithWebIdentity, sts.ActionAssumeRole} {
		t.Run(action, func(t *testing.T) {
			inWorld(t, chain, func(w *world) {
				w.set("main", with(byToken, onTop))
				begin, keys := time.Now(), map[string]bool{}
				each := func(until time.Duration) {
					for time.Since(begin) < until {
						keys[w.sign("main").SecretID] = true
						time.Sleep(time.Minute)
					}
				}
				each(61 * time.Minute)
				fault := w.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: action}, Effect: simulator.Effect{Code: "InternalError.SystemError"}})
				each(81 * time.Minute)
				w.edgeOne.RemoveFault(fault)
				each(2 * time.Hour)
				if _, failed := w.calls(action); failed == 0 || len(keys) < 5 {
					t.Errorf("%d keys signed calls, and STS failed %d times", len(keys), failed)
				}
				for _, call := range w.edgeOne.Calls() {
					if call.Action == teo.ActionDescribeContentQuota && call.Outcome != "OK" {
						t.Errorf("%s: %s", call.Time.Sub(begin), call.Outcome)
					}
				}
			})
		})
	}
}

func TestAChainThatCannotBeRefreshedFailsClosedAndHeals(t *testing.T) {
	inWorld(t, chain, func(w *world) {
		w.set("main", with(byToken, onTop))
		w.sign("main")
		fault := w.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: sts.ActionAssumeRole}, Effect: simulator.Effect{Code: "InternalError.SystemError", Message: "System error."}})
		time.Sleep(29 * time.Minute)
		w.sign("main")
		time.Sleep(time.Minute)
		_, err := w.get("main")
		fact, _ := Explain(err)
		want := `The keys of the role have expired and cannot be refreshed: EdgeOneAccount "main", role ` + ststest.OtherARN +
			": STS failed AssumeRole with InternalError.SystemError: System error."
		if fact != want || ReasonOf(err) != v1alpha1.ReasonCredentialsRefused {
			w.t.Errorf("%s: %s", ReasonOf(err), fact)
		}
		w.edgeOne.RemoveFault(fault)
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.sign("main")
	})
}

func TestAChangedSpecUsesTheNewRoleAtOnce(t *testing.T) {
	inWorld(t, func(c *simulator.Config) {
		c.Roles = append(c.Roles, simulator.Role{ARN: shopARN, Account: "demo", Trust: c.Roles[0].Trust})
		c.Roles[1].Lifetime = 20 * time.Minute
	}, func(w *world) {
		w.set("main", with(byToken, onTop))
		if creds := w.sign("main"); creds.Principal != ststest.OtherARN {
			w.t.Fatal(creds.Principal)
		}
		w.set("main", &v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: shopARN}})
		if creds := w.sign("main"); creds.Principal != shopARN {
			w.t.Errorf("the keys are of %s", creds.Principal)
		}
		before, _ := w.calls(sts.ActionAssumeRole)
		time.Sleep(3 * time.Hour)
		if after, _ := w.calls(sts.ActionAssumeRole); after != before {
			w.t.Errorf("the old role was assumed %d times more", after-before)
		}
		w.set("main", &bySecret)
		if creds := w.sign("main"); creds.SecretID != "AKIDdemo" {
			w.t.Errorf("the keys are of %s", creds.Principal)
		}
		if _, ok := w.observed["main"]; ok {
			w.t.Error("an account without a role still has metrics")
		}
		w.mu.Lock()
		w.secrets[client.ObjectKey{Namespace: ownNamespace, Name: "others"}] = map[string][]byte{"secretId": []byte("AKIDother"), "secretKey": []byte("key")}
		w.mu.Unlock()
		w.set("main", &v1alpha1.AccountCredentials{SecretRef: v1alpha1.AccountSecretReference{Name: "others"}})
		if creds, err := w.get("main"); err != nil || creds.SecretID != "AKIDother" {
			w.t.Errorf("after another Secret was named: %v", err)
		}
	})
}

// The next call needs keys before the Reader hears of the change.
func TestAChangedSpecCountsBeforeItsChangeIsReported(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.set("main", &byToken)
		w.sign("main")
		w.mu.Lock()
		w.accounts["main"] = &v1alpha1.EdgeOneAccount{ObjectMeta: metav1.ObjectMeta{Name: "main"}, Spec: v1alpha1.EdgeOneAccountSpec{Credentials: *with(byToken, onTop)}}
		w.mu.Unlock()
		if creds := w.sign("main"); creds.Principal != ststest.OtherARN || w.observed["main"] != 1 {
			w.t.Errorf("the keys are of %s; %d refreshes were observed", creds.Principal, w.observed["main"])
		}
		w.mu.Lock()
		delete(w.accounts, "main")
		w.mu.Unlock()
		if _, err := w.get("main"); !errors.Is(err, ErrNoAccount) {
			w.t.Errorf("of an account that is gone: %v", err)
		}
	})
}

// A spec that changes while STS has not answered yet makes no keys of the old role usable.
func TestASpecThatChangesDuringARefreshHasNoKeysOfTheOldRole(t *testing.T) {
	inWorld(t, func(c *simulator.Config) {
		c.Roles = append(c.Roles, simulator.Role{ARN: shopARN, Account: "demo", Trust: c.Roles[0].Trust})
	}, func(w *world) {
		held := w.edgeOne.HoldAnswer(simulator.Matcher{Action: sts.ActionAssumeRoleWithWebIdentity, Nth: 1})
		w.set("main", &byToken)
		go func() { _, _ = w.get("main") }()
		<-held.Arrived()
		w.set("main", &v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: shopARN}})
		if creds := w.sign("main"); creds.Principal != shopARN {
			w.t.Errorf("the keys are of %s", creds.Principal)
		}
		held.Release()
		synctest.Wait()
		if creds := w.sign("main"); creds.Principal != shopARN || w.observed["main"] != 1 {
			w.t.Errorf("later, the keys are of %s; %d refreshes were observed", creds.Principal, w.observed["main"])
		}
	})
}

func TestAccountsThatAreGoneLeaveNothing(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		for i := range 500 {
			name := fmt.Sprint("account-", i)
			w.set(name, with(byToken, onTop))
			if i%2 == 0 {
				w.sign(name)
			} else {
				w.edgeOne.ClearFaults()
				w.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: sts.ActionAssumeRole}, Effect: simulator.Effect{Code: "UnauthorizedOperation"}})
				_, err := w.get(name)
				if ReasonOf(err) != v1alpha1.ReasonRoleRefused {
					w.t.Fatal(err)
				}
				w.edgeOne.ClearFaults()
			}
			w.set(name, nil)
			time.Sleep(time.Second)
		}
		synctest.Wait()
		w.reader.roles.mu.Lock()
		kept := slices.Collect(maps.Keys(w.reader.roles.byName))
		w.reader.roles.mu.Unlock()
		before, _ := w.calls(sts.ActionAssumeRoleWithWebIdentity)
		time.Sleep(13 * time.Hour)
		if after, _ := w.calls(sts.ActionAssumeRoleWithWebIdentity); len(kept) > 0 || after != before || len(w.observed) > 0 {
			w.t.Errorf("%d providers are kept, %d refreshes later, %d accounts in the metrics", len(kept), after-before, len(w.observed))
		}
		if _, err := w.get("account-0"); !errors.Is(err, ErrNoAccount) || !errors.Is(err, ErrMissing) {
			w.t.Errorf("of an account that is gone: %v", err)
		}
	})
}

func TestTheKeysOfAnAccountThatEdgeOneRefusesAreRefreshedOnce(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		w.set("main", with(byToken, onTop))
		w.set("shop", &byToken)
		main, shop := w.sign("main"), w.sign("shop")
		w.edgeOne.RevokeSessions(ststest.OtherARN)
		if _, err := w.teo.DescribeContentQuota(w.t.Context(), main, demoZone); teo.Code(err) != "AuthFailure.SecretIdNotFound" {
			w.t.Fatal(err)
		}
		if w.sign("main") == main || w.sign("shop") != shop {
			w.t.Error("not the keys that EdgeOne refused were refreshed")
		}
		before, _ := w.calls(sts.ActionAssumeRole)
		w.edgeOne.RevokeSessions(ststest.OtherARN)
		for range 3 {
			creds, err := w.get("main")
			w.must(err)
			_, _ = w.teo.DescribeContentQuota(w.t.Context(), creds, demoZone)
			synctest.Wait()
		}
		if after, _ := w.calls(sts.ActionAssumeRole); after != before {
			w.t.Errorf("refreshed %d times more within a minute", after-before)
		}
	})
}

func TestForgettingReadsTheSecretAgainAndKeepsTheKeysOfARole(t *testing.T) {
	inWorld(t, nil, func(w *world) {
		key := client.ObjectKey{Namespace: ownNamespace, Name: "keys"}
		rotate := func(id string) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.edgeOne.SetKey(simulator.Key{SecretID: id, SecretKey: "key", Account: "demo"})
			w.secrets[key] = map[string][]byte{"secretId": []byte(id), "secretKey": []byte("key")}
		}
		w.set("plain", &bySecret)
		w.set("role", with(bySecret, onTop))
		w.sign("plain")
		keys := w.sign("role")
		rotate("AKIDrotated")
		if w.sign("plain").SecretID != "AKIDdemo" {
			w.t.Error("the Secret was read again at once")
		}
		for _, name := range []string{"plain", "role", "nobody"} {
			w.reader.ForgetCredentials(taskstate.AccountKey{Account: name})
		}
		if w.sign("plain").SecretID != "AKIDrotated" || w.sign("role") != keys {
			w.t.Error("the Secret was not read again, or the keys of the role are gone")
		}
		rotate("AKIDnewest")
		time.Sleep(30 * time.Second)
		if w.sign("plain").SecretID != "AKIDnewest" {
			w.t.Error("the Secret was not read again after MaxAge")
		}
		w.edgeOne.RemoveKey("AKIDdemo")
		time.Sleep(97 * time.Minute) // the refresh
		synctest.Wait()
		calls := slices.DeleteFunc(w.edgeOne.Calls(), func(c simulator.Call) bool { return c.Action != sts.ActionAssumeRole })
		if last := calls[len(calls)-1]; last.SecretID != "AKIDnewest" || last.Outcome != "OK" || w.sign("role") == keys {
			w.t.Errorf("the refresh was signed with %s: %s", last.SecretID, last.Outcome)
		}
	})
}

func TestEachFailureOfAnAccountNamesItsStepAndWhatToCheck(t *testing.T) {
	const missing, refused = v1alpha1.ReasonCredentialsMissing, v1alpha1.ReasonRoleRefused
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	token := func(claims map[string]any) func(*world) {
		return func(w *world) { w.reader.Identity.WebIdentity.TokenFile = w.issuer.WriteToken(w.issuer.Token(claims)) }
	}
	fault := func(action, code, message string) func(*world) {
		return func(w *world) {
			w.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: action}, Effect: simulator.Effect{Code: code, Message: message}})
		}
	}
	secret := func(data map[string][]byte) func(*world) {
		return func(w *world) { w.secrets[client.ObjectKey{Namespace: ownNamespace, Name: "keys"}] = data }
	}
	const (
		account       = `EdgeOneAccount "main"`
		webRole       = account + ", role " + ststest.RoleARN + ": STS "
		topRole       = account + ", role " + ststest.OtherARN + ": STS "
		checkProvider = "check in CAM that the identity provider has the cluster's issuer URL and its current signing keys, " +
			"that the token's audience is one of its client IDs, and the provider ID"
		checkTrust  = "check that the role's trust policy names the identity provider and accepts the token's issuer, audience and subject"
		checkCaller = "check that the role's trust policy names the caller and its external ID, and that the caller may call sts:AssumeRole"
		checkPath   = "check the network path to STS (--sts-endpoint)"
	)
	for _, c := range []struct {
		name         string
		spec         *v1alpha1.AccountCredentials
		change       func(*world)
		reason       string
		fact, advice string
	}{
		{"no account", nil, nil, missing, account + " does not exist", "create it, or correct spec.accountRef"},
		{"no Secret", &bySecret, func(w *world) { clear(w.secrets) }, missing,
			"credentials missing: " + account + `: Secret "keys" does not exist in namespace "teo-prefetch-system"`, "create it with the keys secretId and secretKey"},
		{"a Secret of a task's namespace", &bySecret, func(w *world) {
			w.secrets = map[client.ObjectKey]map[string][]byte{{Namespace: "shop", Name: "keys"}: demoKeys}
		}, missing, "credentials missing: " + account + `: Secret "keys" does not exist in namespace "teo-prefetch-system"`, "create it with the keys secretId and secretKey"},
		{"half a Secret", &bySecret, secret(map[string][]byte{"secretId": []byte("AKIDdemo"), "hidden": nil}), missing,
			"credentials missing: " + account + `: Secret "keys" has no key secretKey, or it is empty`, ""},
		{"half a Secret under a role", with(bySecret, onTop), secret(map[string][]byte{"secretId": []byte("AKIDdemo"), "hidden": nil}), missing,
			"credentials missing: " + account + `: Secret "keys" has no key secretKey, or it is empty`, ""},
		{"a key that cannot sign", &bySecret, secret(map[string][]byte{"secretId": []byte("AKID\ndemo"), "secretKey": []byte("k")}), v1alpha1.ReasonCredentialsRefused,
			account + ": the credentials contain white space or other characters that no key has", ""},
		{"an API server in trouble", &bySecret, func(w *world) { w.broken = errors.New("busy") }, "",
			account + `: reading Secret "keys": busy`, ""},
		{"an API server in trouble under a role", with(bySecret, onTop), func(w *world) { w.broken = errors.New("busy") }, "",
			account + `: Secret "keys" cannot be read from the Kubernetes API`, ""},
		{"keys that STS does not know", with(bySecret, onTop), func(w *world) { w.edgeOne.RemoveKey("AKIDdemo") }, v1alpha1.ReasonCredentialsRefused,
			topRole + "refused AssumeRole with AuthFailure.SecretIdNotFound. STS says: The SecretId is not found. Check that the key was not deleted or disabled.",
			"check the keys that assume the role"},
		{"another external ID", with(bySecret, v1alpha1.AssumeRole{RoleARN: ststest.OtherARN, ExternalID: "another"}), nil, refused,
			topRole + "refused AssumeRole with UnauthorizedOperation. STS says: The caller is not allowed to assume this role.", checkCaller},
		{"no role on top", with(byToken, v1alpha1.AssumeRole{RoleARN: ststest.OtherARN + "2"}), nil, refused,
			account + ", role " + ststest.OtherARN + "2: STS refused AssumeRole with ResourceNotFound.RoleNotFound. STS says: The role does not exist.",
			"check the ARN of the role to assume, the external ID, and the role's trust policy"},
		{"no token", &byToken, func(w *world) { w.reader.Identity.WebIdentity.TokenFile = "" }, missing,
			"credentials missing: " + account + ": the operator has no web identity token",
			"run it with --web-identity-token-file (the chart's workloadIdentity.enabled), or in TKE give its ServiceAccount a role"},
		{"no token file", &byToken, func(w *world) { w.reader.Identity.WebIdentity.TokenFile = "/nowhere/token" }, missing,
			"credentials missing: " + account + ": the operator has no web identity token: file /nowhere/token does not exist",
			"mount a projected ServiceAccount token there"},
		{"an empty token file", with(byToken, onTop), func(w *world) { w.reader.Identity.WebIdentity.TokenFile = empty }, missing,
			"credentials missing: " + account + ": the operator has no web identity token: file " + empty + " is empty",
			"mount a projected ServiceAccount token there"},
		{"another audience", &byToken, token(map[string]any{"aud": "elsewhere"}), refused,
			webRole + "refused AssumeRoleWithWebIdentity with InvalidParameter.WebIdentityTokenError. STS says: the audience of the token is not a client ID of the identity provider", checkProvider},
		{"another subject", with(byToken, onTop), token(map[string]any{"sub": "system:serviceaccount:shop:default"}), refused,
			webRole + "refused AssumeRoleWithWebIdentity with UnauthorizedOperation. STS says: The trust policy of the role does not allow this web identity.", checkTrust},
		{"another provider", &v1alpha1.AccountCredentials{WebIdentity: v1alpha1.WebIdentity{RoleARN: ststest.RoleARN, ProviderID: "cls-other"}}, nil, refused,
			webRole + "refused AssumeRoleWithWebIdentity with InvalidParameter.ParamError. STS says: The identity provider does not exist.",
			"check the role ARN, the provider ID, and the role's trust policy"},
		{"no endpoint of STS", &byToken, func(w *world) { w.reader.Identity.STS = nil }, missing,
			"credentials missing: " + account + ": the operator does not know the address of STS", "run it with --sts-endpoint"},
		{"no endpoint of STS for the role on top", with(bySecret, onTop), func(w *world) { w.reader.Identity.STS = nil }, missing,
			"credentials missing: " + account + ": the operator does not know the address of STS", "run it with --sts-endpoint"},
		{"STS in trouble", with(byToken, onTop), fault(sts.ActionAssumeRole, "InternalError.SystemError", "System error."), "",
			topRole + "failed AssumeRole with InternalError.SystemError: System error.", ""},
		{"STS out of reach", &byToken, func(w *world) {
			w.edgeOne.AddFault(simulator.Fault{Match: simulator.Matcher{Action: sts.ActionAssumeRoleWithWebIdentity}, Effect: simulator.Effect{Answer: "close"}})
		}, "", webRole + "did not answer AssumeRoleWithWebIdentity: no answer: connection closed", checkPath},
		{"the role of the node, not allowed", &byNode, func(w *world) { w.reader.Identity.CVM = nil }, missing,
			"credentials missing: " + account + ": the operator may not use the role of its node (cvmRole)",
			"use another source of credentials, or run the operator with --allow-cvm-role"},
		{"a role that the node does not have", &v1alpha1.AccountCredentials{CVMRole: v1alpha1.CVMRole{Name: "other"}}, nil, missing,
			"credentials missing: " + account + `: the CVM metadata service has no role "other"`, "attach the role to the CVM instance on which the operator runs"},
		{"no metadata service", with(byNode, onTop), func(w *world) { w.reader.Identity.CVM = sts.NewCVM(sts.CVMOptions{Transport: gone{}}) }, "",
			account + ", CVM role " + ststest.CVMRole + ": The CVM metadata service gave no keys: it did not answer",
			"check that the operator runs on a CVM instance, and that no NetworkPolicy keeps it from the metadata service"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, nil, func(w *world) {
				if c.change != nil {
					c.change(w)
				}
				if c.spec != nil {
					w.set("main", c.spec)
				}
				creds, err := w.get("main")
				fact, advice := Explain(err)
				if creds != (teo.Credentials{}) || ReasonOf(err) != c.reason || fact != c.fact || advice != c.advice {
					t.Errorf("%s: %s\n%s\nwant %s: %s\n%s", ReasonOf(err), fact, advice, c.reason, c.fact, c.advice)
				}
				if strings.Contains(err.Error(), "hidden") || strings.Contains(err.Error(), "demo-secret-key") {
					t.Errorf("the error is %v", err)
				}
			})
		})
	}
	if ReasonOf(nil) != "" || ReasonOf(errors.New("x")) != "" {
		t.Error("no failure, or one of another package, has a reason")
	}
}

// gone is a transport without a server.
type gone struct{}

func (gone) RoundTrip(r *http.Request) (*http.Response, error) {
	return nil, errors.New("no route to host")
}
