package credentials

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

func TestFromKeys(t *testing.T) {
	type keys = map[string]string
	for _, c := range []struct {
		name string
		keys keys
		want teo.Credentials
		err  string
	}{
		{"complete", keys{"secretId": "id", "secretKey": "key", "token": "t"}, teo.Credentials{SecretID: "id", SecretKey: "key", Token: "t"}, ""},
		{"line breaks are trimmed", keys{"secretId": "id\n", "secretKey": " key\r\n"}, teo.Credentials{SecretID: "id", SecretKey: "key"}, ""},
		{"missing", keys{"secretId": "id"}, teo.Credentials{}, "credentials missing: Secret has no key secretKey, or it is empty"},
		{"empty", keys{"secretId": " ", "secretKey": "key"}, teo.Credentials{}, "credentials missing: Secret has no key secretId, or it is empty"},
		{"longer than any key", keys{"secretId": "id", "secretKey": strings.Repeat("k", 1<<20)}, teo.Credentials{},
			"credentials missing: Secret: secretKey is longer than any key of EdgeOne"},
		{"both missing is told in the same words each time", nil, teo.Credentials{}, "credentials missing: Secret has no key secretId, or it is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 20 {
				values := map[string][]byte{}
				for key, value := range c.keys {
					values[key] = []byte(value)
				}
				got, err := parseCredentials("Secret", values, "")
				if c.err == "" && (err != nil || got != c.want) || c.err != "" && (!errors.Is(err, ErrMissing) || err.Error() != c.err) {
					t.Fatalf("%v", err)
				}
			}
		})
	}
}

func TestOwnCredentials(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(when, id string) {
		t.Helper()
		got, err := OwnCredentials(dir)()
		if (err == nil) != (id != "") || got.SecretID != id || err != nil && !errors.Is(err, ErrMissing) {
			t.Errorf("%s: %v", when, err)
		}
	}
	t.Setenv("TENCENTCLOUD_SECRET_ID", "")
	expect("none at all", "")
	t.Setenv("TENCENTCLOUD_SECRET_ID", "env")
	expect("half of the environment", "")
	t.Setenv("TENCENTCLOUD_SECRET_KEY", "key")
	expect("the environment", "env")
	put("..data", "")
	expect("a mounted Secret without keys, and the environment", "env")
	put("secretId", "file\n")
	expect("half a directory wins, and is not mixed with the environment", "")
	put("secretKey", "key\n")
	expect("the directory wins", "file")
	put("secretId", "rotated")
	expect("files are read again", "rotated")
}

func TestTasksAreNotToldWhatTheOperatorsDirectoryHas(t *testing.T) {
	t.Setenv("TENCENTCLOUD_SECRET_ID", "")
	for _, tt := range []struct {
		name   string
		files  map[string]string
		folder string // name of a folder in place of a file
		task   string // part of the error in a task's status
		us     string // end of the description in the operator's log
	}{
		{"none", nil, "", ErrNoOwnCredentials.Error(), "has no files"},
		{"other spellings", map[string]string{"SecretId": "AKID", "SecretKey": "hidden"}, "", "has no key secretId, or it is empty", "has SecretId, SecretKey"},
		{"half of them", map[string]string{"secretId": "AKID"}, "", "has no key secretKey, or it is empty", "has secretId"},
		{"an empty one", map[string]string{"secretId": "\n", "secretKey": "hidden"}, "", "has no key secretId, or it is empty", "has secretId, secretKey"},
		{"one that cannot be read", map[string]string{"secretKey": "hidden"}, "secretId", "cannot be read", "secretId: is a directory"},
		{"one that no key is as long as", map[string]string{"secretId": "AKID", "secretKey": strings.Repeat("hidden", 1<<20)}, "", "secretKey is longer than", "has secretId, secretKey"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tt.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if tt.folder != "" {
				if err := os.Mkdir(filepath.Join(dir, tt.folder), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			_, err := OwnCredentials(dir)()
			if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), tt.task) {
				t.Errorf("a task is told %v, want %q", err, tt.task)
			}
			if us := OwnFiles(dir); !strings.HasSuffix(us, tt.us) || strings.Contains(us, "hidden") {
				t.Errorf("the operator is told %q, want %q", us, tt.us)
			}
			if text := fmt.Sprint(err); strings.Contains(text, dir) || strings.Contains(text, "hidden") || strings.Contains(text, "it has") {
				t.Errorf("a task is told %v", err)
			}
		})
	}
	if _, err := OwnCredentials(filepath.Join(t.TempDir(), "nowhere"))(); !errors.Is(err, ErrMissing) || errors.Is(err, ErrNoOwnCredentials) {
		t.Errorf("of a directory that is not there it says %v", err)
	}
}

// The test changes the directory as the kubelet does: it creates the new folder, replaces
// the link, and then removes the old folder.
func TestTheFilesOfAMountedSecretAreReadFromOneVersion(t *testing.T) {
	dir := t.TempDir()
	must := func(err error) {
		if err != nil {
			t.Error(err)
		}
	}
	write := func(version int) {
		folder := fmt.Sprintf("..v%d", version)
		must(os.Mkdir(filepath.Join(dir, folder), 0o700))
		for _, name := range keyNames {
			must(os.WriteFile(filepath.Join(dir, folder, name), fmt.Append(nil, version), 0o600))
		}
		must(os.Symlink(folder, filepath.Join(dir, "..data_tmp")))
		must(os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		must(os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..v%d", version-1))))
	}
	write(0)
	for _, name := range keyNames {
		must(os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for version := range 500 {
			write(version + 1)
		}
	}()
	t.Cleanup(func() { <-done })
	read, own := 0, OwnCredentials(dir)
	for {
		got, err := own()
		switch {
		case err != nil && !strings.Contains(err.Error(), "cannot be read"): // the version changed in every try
			t.Fatal(err)
		case err == nil && (got.SecretID != got.SecretKey || got.SecretID != got.Token):
			t.Fatalf("SecretId of version %s, SecretKey of version %s, token of version %s", got.SecretID, got.SecretKey, got.Token)
		case err == nil:
			read++
		}
		select {
		case <-done:
			if got, err := own(); err != nil || got.SecretID != "500" {
				t.Errorf("at the end: %v", err)
			}
			t.Logf("read %d times", read)
			return
		default:
		}
	}
}

// secrets is an API server that has a Secret of every name.
type secrets struct {
	client.Reader
	data         map[string][]byte
	wait         chan struct{} // if set, reads wait until it is closed
	now, highest atomic.Int64  // current and highest number of concurrent reads
}

func (s *secrets) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	s.highest.Store(max(s.highest.Load(), s.now.Add(1)))
	defer s.now.Add(-1)
	if s.wait != nil {
		<-s.wait
	}
	obj.(*corev1.Secret).Data = s.data
	if obj.(*corev1.Secret).Data == nil {
		obj.(*corev1.Secret).Data = map[string][]byte{"secretId": []byte(key.Name), "secretKey": []byte("key")}
	}
	return nil
}

func TestCredentialsAreNotKeptLongerThanTheyAreUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Reader{Live: &secrets{}, MaxAge: 30 * time.Second}
		for i := range 10_000 {
			if _, err := c.GetCredentials(t.Context(), taskstate.AccountKey{Namespace: "shop", Secret: fmt.Sprint("generated-", i)}); err != nil {
				t.Fatal(err)
			}
		}
		kept := taskstate.AccountKey{Namespace: "shop", Secret: "generated-0"}
		time.Sleep(20 * time.Second)
		c.ForgetCredentials(kept)
		if _, err := c.GetCredentials(t.Context(), kept); err != nil {
			t.Fatal(err)
		}
		known := func() []taskstate.AccountKey {
			c.mu.Lock()
			defer c.mu.Unlock()
			return slices.Collect(maps.Keys(c.known))
		}
		time.Sleep(15 * time.Second)
		synctest.Wait()
		if got := known(); !slices.Equal(got, []taskstate.AccountKey{kept}) {
			t.Errorf("%d are kept, want the one that was read again", len(got))
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := known(); len(got) != 0 {
			t.Errorf("%d are kept", len(got))
		}
	})
}

func TestFewSecretsAreReadAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		live := &secrets{wait: make(chan struct{})}
		c := &Reader{Live: live, MaxAge: time.Minute}
		var wg sync.WaitGroup
		for i := range 150 {
			wg.Go(func() {
				if _, err := c.GetCredentials(t.Context(), taskstate.AccountKey{Namespace: "shop", Secret: fmt.Sprint(i)}); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		if n := live.now.Load(); n != maxSecretReads {
			t.Errorf("%d are read at a time, want %d", n, maxSecretReads)
		}
		close(live.wait)
		wg.Wait()
	})
}

func TestASecretThatHoldsNoKeyIsRefusedAndNotKept(t *testing.T) {
	live := &secrets{data: map[string][]byte{"secretId": []byte("id"), "secretKey": make([]byte, 1<<20)}}
	c := &Reader{Live: live, MaxAge: time.Minute}
	if _, err := c.GetCredentials(t.Context(), taskstate.AccountKey{Namespace: "shop", Secret: "large"}); err == nil || len(err.Error()) > 200 {
		t.Errorf("it says %v", err)
	}
	live.data = map[string][]byte{"secretID": []byte("id"), "b": nil, "c": nil, "d": nil, "e": nil, "f": nil}
	want := `credentials missing: Secret "keys" has no key secretId, or it is empty; it has b, c, d, e, f, …`
	if _, err := c.GetCredentials(t.Context(), taskstate.AccountKey{Namespace: "shop", Secret: "keys"}); err == nil || err.Error() != want {
		t.Errorf("it says %v", err)
	}
	if len(c.known) != 0 {
		t.Errorf("kept: %v", c.known)
	}
}

// hexDump matches a line of the dump that client-go logs for a binary body.
var hexDump = regexp.MustCompile(`[0-9a-f]{8}  ((?:[0-9a-f]{2} {1,2})+)`)

// decodeDumps returns the log, followed by the decoded content of all dumps in it.
func decodeDumps(logged string) string {
	var decoded strings.Builder
	for _, line := range hexDump.FindAllStringSubmatch(logged, -1) {
		bytes, _ := hex.DecodeString(strings.ReplaceAll(line[1], " ", ""))
		decoded.Write(bytes)
	}
	return logged + decoded.String()
}

func TestNoLogLevelPrintsASecret(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	const key = "the-secret-key-0123456789"
	secret := &corev1.Secret{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "keys"},
		Data:       map[string][]byte{"secretId": []byte("AKIDshop"), "secretKey": []byte(key)},
	}
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	for _, media := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(media, func(t *testing.T) {
			info, _ := runtime.SerializerInfoForMediaType(serializer.NewCodecFactory(scheme).SupportedMediaTypes(), media)
			body, err := runtime.Encode(info.Serializer, secret)
			if err != nil {
				t.Fatal(err)
			}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", media)
				_, _ = w.Write(body)
			}))
			defer server.Close()
			live, err := client.New(&rest.Config{Host: server.URL, ContentConfig: rest.ContentConfig{ContentType: media}},
				client.Options{Scheme: scheme, Mapper: mapper})
			if err != nil {
				t.Fatal(err)
			}
			var logged strings.Builder
			logger := funcr.New(func(_, args string) { logged.WriteString(strings.ReplaceAll(args, `\n`, "\n") + "\n") }, funcr.Options{Verbosity: 10})
			ctx := logr.NewContext(t.Context(), logger)
			shows := func() bool {
				all := decodeDumps(logged.String())
				return strings.Contains(all, key) || strings.Contains(all, base64.StdEncoding.EncodeToString([]byte(key)))
			}
			creds, err := (&Reader{Live: live, MaxAge: time.Minute}).GetCredentials(ctx, taskstate.AccountKey{Namespace: "shop", Secret: "keys"})
			if err != nil || creds.SecretKey != key {
				t.Fatalf("%v", err)
			}
			if shows() {
				t.Errorf("the log has the key:\n%s", &logged)
			}
			if err := live.Get(ctx, client.ObjectKeyFromObject(secret), &corev1.Secret{}); err != nil || !shows() {
				t.Errorf("this test would not see a key in the log (%v):\n%s", err, &logged)
			}
		})
	}
}
