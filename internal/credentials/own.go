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

// keyNames are the names of the parts of credentials, in a Secret and in a directory.
var keyNames = []string{"secretId", "secretKey", "token"}

// OwnCredentials returns a function that reads the operator's own credentials: from the
// files secretId, secretKey and token in dir, or from the environment if dir has no
// files. It reads the files at each use, because a mounted Secret can change while the
// process runs.
//
// The text of an error may appear in the status of any tenant's task, so it does not
// describe the content of the directory. The log does, for the operator's administrators:
// see OwnFiles.
func OwnCredentials(dir string) func() (teo.Credentials, error) {
	var logged atomic.Value // the text of the last error; each change is logged once
	return func() (teo.Credentials, error) {
		files, err := readOwnFiles(dir)
		if err == nil && len(files) == 0 {
			return environmentCredentials()
		}
		var creds teo.Credentials
		if err != nil {
			err = &missingError{"the files of the operator's own credentials cannot be read", "the operator's log says why"}
		} else {
			creds, err = parseCredentials("the directory of the operator's own credentials", files, "")
		}
		if text := fmt.Sprint(err); logged.Swap(text) != text && err != nil {
			log.Log.WithName("credentials").Info("Cannot use the operator's own credentials", "reason", text, "directory", OwnFiles(dir))
		}
		return creds, err
	}
}

// OwnFiles lists the names of the files in the directory of the operator's own
// credentials, or says why it cannot. It does not include the content of the files.
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

// environmentCredentials reads the credentials from environment variables. It returns
// ErrNoOwnCredentials if TENCENTCLOUD_SECRET_ID is not set.
func environmentCredentials() (teo.Credentials, error) {
	if os.Getenv("TENCENTCLOUD_SECRET_ID") == "" {
		return teo.Credentials{}, ErrNoOwnCredentials
	}
	if os.Getenv("TENCENTCLOUD_SECRET_KEY") == "" {
		return teo.Credentials{}, fmt.Errorf("%w: TENCENTCLOUD_SECRET_ID is set in the operator's environment, but TENCENTCLOUD_SECRET_KEY is not", ErrMissing)
	}
	return parseCredentials("the operator's environment", map[string][]byte{
		"secretId":  []byte(os.Getenv("TENCENTCLOUD_SECRET_ID")),
		"secretKey": []byte(os.Getenv("TENCENTCLOUD_SECRET_KEY")),
		"token":     []byte(os.Getenv("TENCENTCLOUD_TOKEN")),
	}, "")
}

// readOwnFiles returns the files in dir by name. It reads the content only of the files in
// keyNames. If dir is "", there are no files.
//
// In a mounted Secret, the link ..data names the folder of the current version. The
// kubelet replaces the link, and then removes the old folder. readOwnFiles reads all
// files from one version, and tries again if the version changes meanwhile. Otherwise, a
// call could be signed with a new SecretId and the old key. EdgeOne would refuse the
// call, and the account would be backed off although a second read would have succeeded.
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

// readFiles reads a folder as readOwnFiles does. It skips hidden files.
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

// readBounded reads at most maxKeyBytes+1 bytes of a file. One byte more than the limit
// shows parseCredentials that the file is too long for a key.
func readBounded(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(io.LimitReader(file, maxKeyBytes+1))
}

// parseCredentials returns the credentials in values, by the names in keyNames. source
// starts the text of each error. hint ends the text if a value is missing.
func parseCredentials(source string, values map[string][]byte, hint string) (teo.Credentials, error) {
	var creds teo.Credentials
	for i, field := range []*string{&creds.SecretID, &creds.SecretKey, &creds.Token} {
		value := values[keyNames[i]]
		if len(value) > maxKeyBytes {
			return teo.Credentials{}, fmt.Errorf("%w: %s: %s is longer than any key of EdgeOne", ErrMissing, source, keyNames[i])
		}
		*field = strings.TrimSpace(string(value)) // files often end with a line break
	}
	for i, value := range []string{creds.SecretID, creds.SecretKey} {
		if value == "" {
			return teo.Credentials{}, &missingError{fmt.Sprintf("%s has no key %s, or it is empty", source, keyNames[i]), strings.TrimPrefix(hint, "; ")}
		}
	}
	if err := creds.Validate(); err != nil { // invalid credentials are not cached
		return teo.Credentials{}, err
	}
	return creds, nil
}
