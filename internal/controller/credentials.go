package controller

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// account is who pays for a call: a Secret, or the operator itself if empty.
type account struct{ Namespace, Secret string }

func accountOf(task *v1alpha1.PrefetchTask) account {
	if name := task.Spec.CredentialsSecretRef.Name; name != "" {
		return account{task.Namespace, name}
	}
	return account{}
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

	mu    sync.Mutex
	known map[account]resolved
}

type resolved struct {
	creds teo.Credentials
	at    time.Time
}

// errMissing is in the chain when a person has to supply credentials.
var errMissing = errors.New("credentials missing")

// ErrNoOwnCredentials says that the operator was given no credentials of its own.
var ErrNoOwnCredentials = fmt.Errorf("%w: the operator has no credentials of its own; "+
	"name a Secret in spec.credentialsSecretRef, or give the operator credentials", errMissing)

// get returns the account's credentials. The text of an error is fit for a status.
func (c *Credentials) get(ctx context.Context, a account) (teo.Credentials, error) {
	c.mu.Lock()
	known, ok := c.known[a]
	c.mu.Unlock()
	if ok && time.Since(known.at) < c.MaxAge {
		return known.creds, nil
	}
	creds, err := c.read(ctx, a)
	if err != nil {
		return teo.Credentials{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = map[account]resolved{}
	}
	c.known[a] = resolved{creds, time.Now()}
	return creds, nil
}

// forget makes the next get read again.
func (c *Credentials) forget(a account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.known, a)
}

func (c *Credentials) read(ctx context.Context, a account) (teo.Credentials, error) {
	if a == (account{}) {
		return c.Own()
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var secret corev1.Secret
	err := c.Live.Get(ctx, types.NamespacedName{Namespace: a.Namespace, Name: a.Secret}, &secret)
	switch {
	case apierrors.IsNotFound(err):
		return teo.Credentials{}, fmt.Errorf("%w: Secret %q does not exist in namespace %q; create it with the keys secretId and secretKey", errMissing, a.Secret, a.Namespace)
	case apierrors.IsForbidden(err):
		return teo.Credentials{}, fmt.Errorf("%w: the operator may not read Secret %q in namespace %q; grant it get on it", errMissing, a.Secret, a.Namespace)
	case err != nil:
		return teo.Credentials{}, fmt.Errorf("reading Secret %q: %w", a.Secret, err)
	}
	return fromKeys(fmt.Sprintf("Secret %q", a.Secret), func(key string) (string, error) {
		return string(secret.Data[key]), nil
	})
}

// OwnCredentials reads the operator's own credentials: from the files secretId,
// secretKey and token in dir, or from the environment if dir has no files. Files are
// read at each use, as a mounted Secret changes under a running process.
func OwnCredentials(dir string) func() (teo.Credentials, error) {
	return func() (teo.Credentials, error) {
		files, err := filesOf(dir)
		if err != nil {
			return teo.Credentials{}, fmt.Errorf("%w: the operator's own cannot be read: %w", errMissing, err)
		}
		if len(files) > 0 {
			creds, err := fromKeys("directory "+dir, func(key string) (string, error) {
				text, err := os.ReadFile(filepath.Join(dir, key))
				if errors.Is(err, os.ErrNotExist) {
					err = nil
				}
				return string(text), err
			})
			if err != nil {
				return teo.Credentials{}, fmt.Errorf("%w; it has %s", err, strings.Join(files, ", "))
			}
			return creds, nil
		}
		if os.Getenv("TENCENTCLOUD_SECRET_ID") == "" {
			return teo.Credentials{}, ErrNoOwnCredentials
		}
		env := map[string]string{
			"secretId":  "TENCENTCLOUD_SECRET_ID",
			"secretKey": "TENCENTCLOUD_SECRET_KEY",
			"token":     "TENCENTCLOUD_TOKEN",
		}
		return fromKeys("the operator's environment", func(key string) (string, error) { return os.Getenv(env[key]), nil })
	}
}

// filesOf are the names of dir's files, but for hidden ones, which a mounted Secret
// keeps its versions in. There are none if dir is empty text.
func filesOf(dir string) (names []string, err error) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), ".") {
			names = append(names, entry.Name())
		}
	}
	return names, err
}

func fromKeys(source string, get func(key string) (string, error)) (teo.Credentials, error) {
	var creds teo.Credentials
	for key, field := range map[string]*string{"secretId": &creds.SecretID, "secretKey": &creds.SecretKey, "token": &creds.Token} {
		text, err := get(key)
		if err != nil {
			return teo.Credentials{}, fmt.Errorf("%w: %s cannot be read: %w", errMissing, source, err)
		}
		*field = strings.TrimSpace(text) // files and kubectl like to add a line break
	}
	for _, needed := range []struct{ key, value string }{{"secretId", creds.SecretID}, {"secretKey", creds.SecretKey}} {
		if needed.value == "" {
			return teo.Credentials{}, fmt.Errorf("%w: %s has no key %s, or it is empty", errMissing, source, needed.key)
		}
	}
	if err := creds.Validate(); err != nil { // before they are kept
		return teo.Credentials{}, err
	}
	return creds, nil
}
