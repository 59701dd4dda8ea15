package credentials

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Reader reads the keys of accounts.
type Reader struct {
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
	known map[taskstate.AccountKey]cachedCredentials // none older than MaxAge
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

// ErrMissing is in the chain when a person has to supply credentials.
var ErrMissing = errors.New("credentials missing")

// ErrNoOwnCredentials says that the operator was given no credentials of its own.
var ErrNoOwnCredentials = fmt.Errorf("%w: the operator has no credentials of its own; "+
	"name a Secret in spec.credentialsSecretRef, or give the operator credentials", ErrMissing)

// GetCredentials returns the account's credentials. The text of an error is fit for a status.
func (c *Reader) GetCredentials(ctx context.Context, a taskstate.AccountKey) (teo.Credentials, error) {
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
func (c *Reader) cacheCredentials(a taskstate.AccountKey, creds teo.Credentials) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[taskstate.AccountKey]cachedCredentials{}
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

// ForgetCredentials makes the next get read again.
func (c *Reader) ForgetCredentials(a taskstate.AccountKey) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, a)
}

func (c *Reader) readSecret(ctx context.Context, a taskstate.AccountKey) (teo.Credentials, error) {
	if a == (taskstate.AccountKey{}) {
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
		return teo.Credentials{}, fmt.Errorf("%w: Secret %q does not exist in namespace %q; create it with the keys secretId and secretKey", ErrMissing, a.Secret, a.Namespace)
	case apierrors.IsForbidden(err):
		return teo.Credentials{}, fmt.Errorf("%w: the operator may not read Secret %q in namespace %q; grant it get on it", ErrMissing, a.Secret, a.Namespace)
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
