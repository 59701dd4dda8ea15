package controller

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

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
		{"both missing is told in the same words each time", nil, teo.Credentials{}, "credentials missing: Secret has no key secretId, or it is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for range 20 {
				got, err := fromKeys("Secret", func(key string) (string, error) { return c.keys[key], nil })
				if c.err == "" && (err != nil || got != c.want) || c.err != "" && (!errors.Is(err, errMissing) || err.Error() != c.err) {
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
		if (err == nil) != (id != "") || got.SecretID != id || err != nil && !errors.Is(err, errMissing) {
			t.Errorf("%s: %v", when, err)
		}
	}
	t.Setenv("TENCENTCLOUD_SECRET_ID", "")
	expect("none at all", "")
	t.Setenv("TENCENTCLOUD_SECRET_ID", "env")
	expect("half of the environment", "")
	t.Setenv("TENCENTCLOUD_SECRET_KEY", "key")
	expect("the environment", "env")
	put("secretId", "file\n")
	expect("half a directory wins, and is not mixed with the environment", "")
	put("secretKey", "key\n")
	expect("the directory wins", "file")
	put("secretId", "rotated")
	expect("files are read again", "rotated")
}
