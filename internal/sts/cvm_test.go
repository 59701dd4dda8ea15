package sts_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts/ststest"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func TestTheKeysOfACVMRoleSignCalls(t *testing.T) {
	w := newWorld(t, nil)
	metadata := httptest.NewServer(&ststest.Metadata{Simulator: w.Simulator, Account: "demo", Lifetime: time.Hour})
	defer metadata.Close()
	keys, err := sts.NewCVM(sts.CVMOptions{Endpoint: metadata.URL + "/"}).Keys(t.Context(), ststest.CVMRole)
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(keys.Expires); left < time.Hour-3*time.Second || left > time.Hour+time.Second || keys.Principal != sts.CVMPrincipal(ststest.CVMRole) {
		t.Errorf("keys of %s for %s", keys.Principal, left)
	}
	if _, err := w.teo.DescribeContentQuota(t.Context(), keys.Credentials, zone); err != nil {
		t.Error(err)
	}
}

func TestOnlyAnAnswerOfTheMetadataServiceIsKeys(t *testing.T) {
	const secret = "the-secret-key-0123456789"
	keys := func(code string, expires time.Time) string {
		return fmt.Sprintf(`{"Code":%q,"TmpSecretId":"AKIDx","TmpSecretKey":%q,"Token":"t","ExpiredTime":%d}`, code, secret, expires.Unix())
	}
	later := time.Now().Add(time.Hour)
	elsewhere := atomic.Int64{}
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		elsewhere.Add(1)
		_, _ = w.Write([]byte(keys("Success", later)))
	}))
	defer other.Close()
	write := func(text string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(text)) }
	}
	for _, c := range []struct {
		name   string
		role   string
		answer http.HandlerFunc
		want   string // "" for keys
	}{
		{"keys", "prefetch", write(keys("Success", later)), ""},
		{"no such role", "prefetch", http.NotFound, `no such CVM role: the CVM metadata service has no role "prefetch"`},
		{"dots, which are another path", "..", write(keys("Success", later)), `no role ".."`},
		{"a path", "a/b", write(keys("Success", later)), `no role "a/b"`},
		{"no name", "", write(keys("Success", later)), `no role ""`},
		{"a redirect", "prefetch", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL, http.StatusFound) }, "HTTP 302"},
		{"another code", "prefetch", write(keys("Failed", later)), "the code Failed"},
		{"no code", "prefetch", write(keys("", later)), "no keys"},
		{"expired", "prefetch", write(keys("Success", time.Now().Add(-time.Minute))), "already expired"},
		{"no token", "prefetch", write(`{"Code":"Success","TmpSecretId":"AKIDx","TmpSecretKey":"` + secret + `","ExpiredTime":9999999999}`), "no keys"},
		{"a line break", "prefetch", write(`{"Code":"Success","TmpSecretId":"AKID\nx","TmpSecretKey":"` + secret + `","Token":"t","ExpiredTime":9999999999}`), "no keys"},
		{"a page", "prefetch", write("<html>" + secret), "another form"},
		{"endless", "prefetch", write(strings.Repeat(" ", 1<<20) + keys("Success", later)), "another form"},
		{"server trouble", "prefetch", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, secret, http.StatusInternalServerError) }, "HTTP 500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := httptest.NewServer(c.answer)
			defer server.Close()
			got, err := sts.NewCVM(sts.CVMOptions{Endpoint: server.URL}).Keys(t.Context(), c.role)
			switch {
			case c.want == "" && (err != nil || got.SecretKey != secret):
				t.Error(err)
			case c.want != "" && (err == nil || got != (sts.Keys{}) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret)):
				t.Errorf("the error is %v", err)
			case c.want != "" && errors.Is(err, sts.ErrNoCVMRole) == errors.Is(err, sts.ErrRole):
				t.Errorf("neither a missing role nor a failure: %v", err)
			case errors.Is(err, sts.ErrRole) && teo.KindOf(err) != teo.Unavailable:
				t.Errorf("the kind is %s", teo.KindOf(err))
			}
		})
	}
	if n := elsewhere.Load(); n != 0 {
		t.Errorf("%d redirects followed", n)
	}
}

func TestAMetadataServiceThatIsNotThereIsNotWaitedFor(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	_, err := sts.NewCVM(sts.CVMOptions{Endpoint: gone.URL}).Keys(t.Context(), "prefetch")
	if _, advice := sts.Explain(err); teo.KindOf(err) != teo.Unavailable || strings.Contains(teo.Message(err), "127.0.0.1") || !strings.Contains(advice, "CVM instance") {
		t.Errorf("it says %v; %s", err, advice)
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, err := sts.NewCVM(sts.CVMOptions{Transport: silent{}}).Keys(t.Context(), "prefetch")
		if teo.KindOf(err) != teo.Unavailable || time.Since(start) > 5*time.Second {
			t.Errorf("after %s: %v", time.Since(start), err)
		}
	})
}

// silent is a transport that never answers.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// The metadata service replaces keys when it wants to. Until then it answers with the same.
func TestAMetadataServiceThatReplacesKeysLateIsNotAskedAllTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		metadata := &ststest.Metadata{Simulator: w.Simulator, Account: "demo", Lifetime: time.Hour}
		cvm := sts.NewCVM(sts.CVMOptions{Transport: metadata})
		p := sts.NewProvider(t.Context(), func(ctx context.Context) (sts.Keys, error) {
			if metadata.Reads() > 80 {
				return sts.Keys{}, errors.New("asked too often") // without it, a test that fails would not end
			}
			return cvm.Keys(ctx, ststest.CVMRole)
		}, func(time.Time, error) {})
		for range 4 * 60 {
			keys, err := p.Get(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.teo.DescribeContentQuota(t.Context(), keys.Credentials, zone); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if n := metadata.Reads(); n > 80 {
			t.Errorf("%d reads in 4 hours", n)
		}
	})
}
