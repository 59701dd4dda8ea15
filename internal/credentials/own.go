package credentials

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

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
			err = fmt.Errorf("%w: the files of the operator's own credentials cannot be read; the operator's log says why", ErrMissing)
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
			return teo.Credentials{}, fmt.Errorf("%w: %s: %s is longer than any key of EdgeOne", ErrMissing, source, keyNames[i])
		}
		*field = strings.TrimSpace(string(value)) // files and kubectl like to add a line break
	}
	for i, value := range []string{creds.SecretID, creds.SecretKey} {
		if value == "" {
			return teo.Credentials{}, fmt.Errorf("%w: %s has no key %s, or it is empty%s", ErrMissing, source, keyNames[i], hint)
		}
	}
	if err := creds.Validate(); err != nil { // before they are kept
		return teo.Credentials{}, err
	}
	return creds, nil
}
