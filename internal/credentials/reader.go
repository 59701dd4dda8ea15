package credentials

import (
	"context"
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

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/taskstate"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// Reader reads the credentials of accounts. It is safe for concurrent use.
type Reader struct {
	// Live reads Secrets past the cache.
	Live client.Reader
	// Own reads the operator's own credentials.
	Own func() (teo.Credentials, error)
	// Role, if not nil, replaces Own: it returns the keys of the operator's role. The
	// Reader does not cache them, because their source does and knows when they expire.
	Role func(context.Context) (teo.Credentials, error)
	// Accounts returns an EdgeOneAccount, or nil if there is none. It is nil if the operator
	// does not use accounts.
	Accounts func(name string) *v1alpha1.EdgeOneAccount
	// Identity is what the operator has to get the keys of accounts with.
	Identity Identity
	// MaxAge is the maximum age of credentials at their use. A change of a Secret takes
	// effect within this time. The Reader does not watch Secrets, so the operator needs no
	// permission to list them.
	MaxAge time.Duration

	reads secretReadSlots
	mu    sync.Mutex                                 // guards known; not held during a read
	known map[taskstate.AccountKey]cachedCredentials // entries are removed after MaxAge
	roles accountRoles
}

// secretReadSlots limits concurrent reads to maxSecretReads.
type secretReadSlots struct {
	once  sync.Once
	slots chan struct{}
}

// acquireSlot waits for a slot, or until ctx ends. The caller returns the slot with
// release.
func (r *secretReadSlots) acquireSlot(ctx context.Context) (release func(), err error) {
	r.once.Do(func() { r.slots = make(chan struct{}, maxSecretReads) })
	select {
	case r.slots <- struct{}{}:
		return func() { <-r.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// cachedCredentials are the credentials of an account, and when they were read.
type cachedCredentials struct {
	creds teo.Credentials
	at    time.Time
}

// maxSecretReads is the maximum number of concurrent reads of Secrets. A Secret may have a
// megabyte, although the Reader keeps only a few hundred bytes.
const maxSecretReads = 8

// secretTimeout bounds the read of a Secret, including the wait for a slot.
const secretTimeout = 5 * time.Second

// maxKeyBytes is the maximum length of a value in bytes, including white space. EdgeOne's
// longest value is a token of 4 KiB.
const maxKeyBytes = 16 << 10

// GetCredentials returns the credentials of an account, from the cache, from its Secret or
// from STS. The text of an error may appear in a status; see Explain and ReasonOf. Errors
// are not cached.
func (c *Reader) GetCredentials(ctx context.Context, a taskstate.AccountKey) (teo.Credentials, error) {
	switch {
	case a.Account != "":
		return c.getAccountCredentials(ctx, a.Account)
	case a == (taskstate.AccountKey{}) && c.Role != nil:
		ctx, cancel := context.WithTimeout(ctx, secretTimeout)
		defer cancel()
		return c.Role(ctx)
	}
	return c.readCached(ctx, a)
}

// readCached returns the credentials in a Secret, or the operator's own, from the cache if
// they are not too old.
func (c *Reader) readCached(ctx context.Context, a taskstate.AccountKey) (teo.Credentials, error) {
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

// cacheCredentials caches the credentials for MaxAge. A timer removes them, so the cache
// keeps nothing of accounts that are gone or unused.
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

// ForgetCredentials removes an account from the cache, so that the next GetCredentials
// reads its Secret. The keys of a role stay: they are refreshed before they expire.
func (c *Reader) ForgetCredentials(a taskstate.AccountKey) {
	if a.Account != "" {
		account, err := c.accountNamed(a.Account)
		if err != nil {
			return
		}
		a = c.secretOf(account)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, a)
}

// readSecret reads the credentials of an account past the cache.
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
	// From log level 8, client-go logs the bodies of responses. So it gets no logger.
	err = c.Live.Get(logr.NewContext(ctx, logr.Discard()), types.NamespacedName{Namespace: a.Namespace, Name: a.Secret}, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return teo.Credentials{}, &missingError{
			fmt.Sprintf("Secret %q does not exist in namespace %q", a.Secret, a.Namespace), "create it with the keys secretId and secretKey",
		}
	case apierrors.IsForbidden(err):
		return teo.Credentials{}, &missingError{fmt.Sprintf("the operator may not read Secret %q in namespace %q", a.Secret, a.Namespace), "grant it get on it"}
	case err != nil:
		return teo.Credentials{}, fmt.Errorf("reading Secret %q: %w", a.Secret, err)
	}
	hint := ""
	if a.Namespace != c.Identity.Namespace { // tasks of any namespace may report what an account's Secret lacks
		hint = listKeys(slices.Collect(maps.Keys(secret.Data)))
	}
	return parseCredentials(fmt.Sprintf("Secret %q", a.Secret), secret.Data, hint)
}

// listKeys lists the keys of a Secret as a hint, because a missing key is often
// misspelled. It lists at most 5 keys.
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
