package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// accountKey is who pays for a call: a Secret, or the operator itself if empty.
type accountKey struct{ Namespace, Secret string }

// String names the line in which the account's calls wait for their turn.
func (a accountKey) String() string { return a.Namespace + "/" + a.Secret }

func accountKeyOf(task *v1alpha1.PrefetchTask) accountKey {
	if name := task.Spec.CredentialsSecretRef.Name; name != "" {
		return accountKey{task.Namespace, name}
	}
	return accountKey{}
}

// Credentials reads the keys of accounts.
type Credentials struct {
	// Live reads Secrets past the cache.
	Live client.Reader
	// Own reads the operator's own credentials.
	Own func() (teo.Credentials, error)
	// MaxAge is how old credentials may be when they are used. It bounds how long
	// a rotated Secret takes to be taken up; Secrets are not watched, so that the
	// operator needs no right to list them.
	MaxAge time.Duration

	reads secretReadSlots
	mu    sync.Mutex
	known map[accountKey]cachedCredentials // none older than MaxAge
}

// secretReadSlots lets at most maxSecretReads through at a time.
type secretReadSlots struct {
	once  sync.Once
	slots chan struct{}
}

// acquireSlot waits for a slot, which release gives back.
func (r *secretReadSlots) acquireSlot(ctx context.Context) (release func(), err error) {
	r.once.Do(func() { r.slots = make(chan struct{}, maxSecretReads) })
	select {
	case r.slots <- struct{}{}:
		return func() { <-r.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cachedCredentials is what was read of an account, and when.
type cachedCredentials struct {
	creds teo.Credentials
	at    time.Time
}

// maxSecretReads is how many Secrets are read at a time. One may have a megabyte, of
// which a few hundred bytes are kept.
const maxSecretReads = 8

// secretTimeout bounds the read of a Secret.
const secretTimeout = 5 * time.Second

// maxKeyBytes is how long a value may be, white space included, that is looked at. The
// longest that EdgeOne has is a token of 4 KiB.
const maxKeyBytes = 16 << 10

// errMissing is in the chain when a person has to supply credentials.
var errMissing = errors.New("credentials missing")

// ErrNoOwnCredentials says that the operator was given no credentials of its own.
var ErrNoOwnCredentials = fmt.Errorf("%w: the operator has no credentials of its own; "+
	"name a Secret in spec.credentialsSecretRef, or give the operator credentials", errMissing)

// getCredentials returns the account's credentials. The text of an error is fit for a status.
func (c *Credentials) getCredentials(ctx context.Context, a accountKey) (teo.Credentials, error) {
	c.mu.Lock()
	known, ok := c.known[a]
	c.mu.Unlock()
	if ok && time.Since(known.at) < c.MaxAge {
		return known.creds, nil
	}
	creds, err := c.readSecret(ctx, a)
	if err != nil {
		return teo.Credentials{}, err
	}
	c.cacheCredentials(a, creds)
	return creds, nil
}

// cacheCredentials remembers what was read until it is too old to be used: of an account that is
// gone, or is not used any more, nothing stays.
func (c *Credentials) cacheCredentials(a accountKey, creds teo.Credentials) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[accountKey]cachedCredentials{}
	}
	at := time.Now()
	c.known[a] = cachedCredentials{creds, at}
	time.AfterFunc(c.MaxAge, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.known[a].at.Equal(at) {
			delete(c.known, a)
		}
	})
}

// forgetCredentials makes the next get read again.
func (c *Credentials) forgetCredentials(a accountKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, a)
}

func (c *Credentials) readSecret(ctx context.Context, a accountKey) (teo.Credentials, error) {
	if a == (accountKey{}) {
		return c.Own()
	}
	ctx, cancel := context.WithTimeout(ctx, secretTimeout)
	defer cancel()
	release, err := c.reads.acquireSlot(ctx)
	if err != nil {
		return teo.Credentials{}, fmt.Errorf("reading Secret %q: %w", a.Secret, err)
	}
	defer release()
	var secret corev1.Secret
	// From level 8 on client-go would log what it reads.
	err = c.Live.Get(logr.NewContext(ctx, logr.Discard()), types.NamespacedName{Namespace: a.Namespace, Name: a.Secret}, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return teo.Credentials{}, fmt.Errorf("%w: Secret %q does not exist in namespace %q; create it with the keys secretId and secretKey", errMissing, a.Secret, a.Namespace)
	case apierrors.IsForbidden(err):
		return teo.Credentials{}, fmt.Errorf("%w: the operator may not read Secret %q in namespace %q; grant it get on it", errMissing, a.Secret, a.Namespace)
	case err != nil:
		return teo.Credentials{}, fmt.Errorf("reading Secret %q: %w", a.Secret, err)
	}
	return parseCredentials(fmt.Sprintf("Secret %q", a.Secret), secret.Data, listKeys(slices.Collect(maps.Keys(secret.Data))))
}

// listKeys lists names that may be another spelling of what is missing.
func listKeys(names []string) string {
	if len(names) == 0 {
		return ""
	}
	slices.Sort(names)
	const most = 5
	more := ""
	if len(names) > most {
		names, more = names[:most], ", …"
	}
	return "; it has " + strings.Join(names, ", ") + more
}

// keyNames are the names of what makes up credentials, in a Secret and in a directory.
var keyNames = []string{"secretId", "secretKey", "token"}

// OwnCredentials reads the operator's own credentials: from the files secretId,
// secretKey and token in dir, or from the environment if dir has no files. Files are
// read at each use, as a mounted Secret changes under a running process. The text of an
// error is fit for the status of any tenant's task: it says nothing of what the
// directory has. OwnFiles does, for those who run the operator.
func OwnCredentials(dir string) func() (teo.Credentials, error) {
	var logged atomic.Value // the text of the error that was logged last
	return func() (teo.Credentials, error) {
		files, err := readOwnFiles(dir)
		if err == nil && len(files) == 0 {
			return environmentCredentials()
		}
		var creds teo.Credentials
		if err != nil {
			err = fmt.Errorf("%w: the files of the operator's own credentials cannot be read; the operator's log says why", errMissing)
		} else {
			creds, err = parseCredentials("the directory of the operator's own credentials", files, "")
		}
		if text := fmt.Sprint(err); logged.Swap(text) != text && err != nil {
			log.Log.WithName("credentials").Info("Cannot use the operator's own credentials", "reason", text, "directory", OwnFiles(dir))
		}
		return creds, err
	}
}

// OwnFiles describes what the directory of the operator's own credentials has, without
// the contents.
func OwnFiles(dir string) string {
	files, err := readOwnFiles(dir)
	switch {
	case err != nil:
		return err.Error()
	case len(files) == 0:
		return dir + " has no files"
	}
	return dir + " has " + strings.Join(slices.Sorted(maps.Keys(files)), ", ")
}

func environmentCredentials() (teo.Credentials, error) {
	if os.Getenv("TENCENTCLOUD_SECRET_ID") == "" {
		return teo.Credentials{}, ErrNoOwnCredentials
	}
	return parseCredentials("the operator's environment", map[string][]byte{
		"secretId":  []byte(os.Getenv("TENCENTCLOUD_SECRET_ID")),
		"secretKey": []byte(os.Getenv("TENCENTCLOUD_SECRET_KEY")),
		"token":     []byte(os.Getenv("TENCENTCLOUD_TOKEN")),
	}, "")
}

// readOwnFiles returns dir's files, by name, of those that are no part of credentials
// only the names. There are none if dir is empty text.
//
// The link ..data of a mounted Secret names the folder of its version; the kubelet
// replaces the link, and then removes the folder. All files are read from one version:
// a new SecretId with the old key would be refused, and EdgeOne's answer would end what
// another look would not.
func readOwnFiles(dir string) (files map[string][]byte, err error) {
	if dir == "" {
		return nil, nil
	}
	const tries = 5
	for range tries {
		version, _ := os.Readlink(filepath.Join(dir, "..data"))
		files, err = readFiles(filepath.Join(dir, version))
		if now, _ := os.Readlink(filepath.Join(dir, "..data")); now == version {
			return files, err
		}
	}
	return nil, fmt.Errorf("%s changes all the time", dir)
}

func readFiles(dir string) (map[string][]byte, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		var content []byte
		if slices.Contains(keyNames, entry.Name()) {
			if content, err = readBounded(filepath.Join(dir, entry.Name())); err != nil {
				return nil, err
			}
		}
		files[entry.Name()] = content
	}
	return files, nil
}

// readBounded reads a file, of one that is too long for a key only so much that it shows.
func readBounded(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(io.LimitReader(file, maxKeyBytes+1))
}

// parseCredentials makes credentials of the values of keyNames. The hint is added where one of
// them is missing.
func parseCredentials(source string, values map[string][]byte, hint string) (teo.Credentials, error) {
	var creds teo.Credentials
	for i, field := range []*string{&creds.SecretID, &creds.SecretKey, &creds.Token} {
		value := values[keyNames[i]]
		if len(value) > maxKeyBytes {
			return teo.Credentials{}, fmt.Errorf("%w: %s: %s is longer than any key of EdgeOne", errMissing, source, keyNames[i])
		}
		*field = strings.TrimSpace(string(value)) // files and kubectl like to add a line break
	}
	for i, value := range []string{creds.SecretID, creds.SecretKey} {
		if value == "" {
			return teo.Credentials{}, fmt.Errorf("%w: %s has no key %s, or it is empty%s", errMissing, source, keyNames[i], hint)
		}
	}
	if err := creds.Validate(); err != nil { // before they are kept
		return teo.Credentials{}, err
	}
	return creds, nil
}
