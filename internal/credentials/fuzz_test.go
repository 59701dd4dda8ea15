package credentials

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

// FuzzCredentials reads the same keys from a Secret and from files.
func FuzzCredentials(f *testing.F) {
	for _, keys := range [][3]string{
		{"AKIDexample", "keyofexample", ""}, {"AKIDexample\n", " keyofexample\r\n", "\ttoken\v"}, {"", "", ""}, {" ", "keyofexample", ""},
		{"AKID\x00example", "key of example", "\xff\xfe"}, {"AKIDexample", "", "token"}, {"{\"a\":1}", "\u00a0\u2028", "%s%v"},
	} {
		f.Add(keys[0], keys[1], keys[2])
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, id, key, token string) {
		if max(len(id), len(key), len(token)) > maxKeyBytes {
			return
		}
		values := map[string][]byte{"secretId": []byte(id), "secretKey": []byte(key), "token": []byte(token)}
		creds, err := parseCredentials("Secret", values, "")
		want := teo.Credentials{SecretID: strings.TrimSpace(id), SecretKey: strings.TrimSpace(key), Token: strings.TrimSpace(token)}
		switch usable := want.Validate() == nil; {
		case usable && (err != nil || creds != want):
			t.Errorf("not what is in the Secret: %v", err)
		case !usable && (err == nil || creds != teo.Credentials{}):
			t.Errorf("%v of a Secret that has no keys", creds)
		}
		for name, value := range values {
			if err := os.WriteFile(filepath.Join(dir, name), value, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if owned, ownErr := OwnCredentials(dir)(); owned != creds || (ownErr == nil) != (err == nil) {
			t.Errorf("the files are %v, %v; the Secret is %v, %v", owned, ownErr, creds, err)
		}
		if err == nil {
			return
		}
		for _, value := range values {
			if len(value) >= 12 && strings.Contains(err.Error(), string(value)) {
				t.Errorf("%q tells a key", err)
			}
		}
	})
}
