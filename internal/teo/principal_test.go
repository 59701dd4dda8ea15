package teo

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

const roleARN = "qcs::cam::uin/100000000001:roleName/prefetch"

// roleKeys are the temporary keys of a role after a number of refreshes.
func roleKeys(arn string, refreshes int) Credentials {
	return Credentials{
		SecretID: fmt.Sprint("AKIDtemporary", refreshes), SecretKey: fmt.Sprint("temporarykey", refreshes),
		Token: fmt.Sprint("token", refreshes), Principal: arn,
	}
}

// The hash is in the statuses of lost calls. Never edit a hash in this table.
func TestTheHashOfAnAccountNeverChanges(t *testing.T) {
	for _, c := range []struct {
		name, hash string
		creds      Credentials
	}{
		{"a key", "5dd2a3bac51024c4", keys("AKIDexample", "key")},
		{"the key with a token", "5dd2a3bac51024c4", Credentials{SecretID: "AKIDexample", SecretKey: "other", Token: "token"}},
		{"a role", "9680043d944311f4", roleKeys(roleARN, 1)},
		{"the role after a refresh", "9680043d944311f4", roleKeys(roleARN, 2)},
		{"no key", "e3b0c44298fc1c14", Credentials{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.creds.Hash(); got != c.hash {
				t.Errorf("the hash is %s, want %s", got, c.hash)
			}
		})
	}
}

func TestARefreshKeepsTheLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := roleKeys(roleARN, 1), roleKeys(roleARN, 2)
		c := clientOf(t, Options{Transport: accepting(t, first, second)})
		limiter := c.Limiter(first, ActionCreatePrefetchTask)
		time.Sleep(2 * window)
		take(t, limiter, 15)
		for _, creds := range []Credentials{first, second} {
			if _, err := c.FirstRecords(t.Context(), creds, ListRequest{ZoneID: "zone-1"}); err != nil {
				t.Fatal(err)
			}
			if c.Limiter(creds, ActionCreatePrefetchTask) != limiter {
				t.Fatalf("%v have another limiter", creds)
			}
		}
		if n, _ := c.Limiter(second, ActionCreatePrefetchTask).Free("", 0, nil); n != 5 {
			t.Errorf("%d slots are free after 15 of 20 were taken before the refresh", n)
		}
	})
}

// A user can write the ARN of a role into a Secret, where a SecretId belongs. EdgeOne has
// no such SecretId, and neither does the limiter of the role.
func TestOnlyItsRoleSharesTheLimiterOfARole(t *testing.T) {
	c := clientOf(t, Options{})
	limiter := c.Limiter(roleKeys(roleARN, 1), "X")
	for name, other := range map[string]Credentials{
		"the ARN as a SecretId":      keys(roleARN, "key"),
		"the SecretId of the role":   {SecretID: roleKeys(roleARN, 1).SecretID, SecretKey: roleKeys(roleARN, 1).SecretKey},
		"another role":               roleKeys(roleARN+"2", 1),
		"no SecretId, the ARN a key": keys("", roleARN),
	} {
		if c.Limiter(other, "X") == limiter {
			t.Errorf("%s has the limiter of the role", name)
		}
	}
}
