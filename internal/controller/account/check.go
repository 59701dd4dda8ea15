package account

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/credentials"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/sts"
	"github.com/prefetch-operator/teo-prefetch-operator/internal/teo"
)

const (
	// quotaInterval is how often the quota of a zone is read while EdgeOne accepts the
	// credentials. The quota of a zone that was used since is read at each check.
	quotaInterval = 5 * time.Minute
	// maxProofs and maxReads bound the quota reads of one check: without a zone that
	// EdgeOne answers for, and with one.
	maxProofs, maxReads = 4, 32
	// checkTimeout bounds the quota reads of one check.
	checkTimeout = 30 * time.Second
)

// accountState is what this process knows about the credentials of one account.
type accountState struct {
	uid         types.UID
	credentials v1alpha1.AccountCredentials
	changedAt   time.Time // when the credentials changed; zero if they have not since the start
	checkAt     time.Time // when they are checked next
	writtenAt   time.Time // when the status was last written

	keys    keyIdentity
	keysAt  time.Time           // when the keys were last read
	keysNew time.Time           // when they last became other ones
	refusal refusal             // what this process was last refused; zero if it was not since
	zones   map[string]zoneRead // by ID
	trouble error               // why the last check has no answer; nil if it has

	// isCarried says that the status of an earlier process is about the same credentials,
	// and counts until there is an answer.
	isCarried bool
}

// keyIdentity identifies keys without containing them.
type keyIdentity struct {
	principal string
	isRole    bool
	hash      [sha256.Size]byte // of a static key; the keys of a role change at each refresh
}

// identityOf returns the identity of keys.
func identityOf(creds teo.Credentials) keyIdentity {
	if creds.Principal != "" {
		return keyIdentity{principal: creds.Principal, isRole: true}
	}
	text := creds.SecretID + "\x00" + creds.SecretKey + "\x00" + creds.Token
	return keyIdentity{principal: creds.SecretID, hash: sha256.Sum256([]byte(text))}
}

// refusal is an error that concerns all calls of an account.
type refusal struct {
	err error
	at  time.Time
}

// zoneRead is EdgeOne's answer to a read of a zone's quota.
type zoneRead struct {
	quota *teo.ContentQuota // nil if EdgeOne reports none
	used  int               // what the account had used of the zone today
	err   error             // the refusal; nil if EdgeOne accepted the keys for the zone
	at    time.Time
}

// newState returns the state of an account that this process has not checked yet.
func newState(account *v1alpha1.EdgeOneAccount) *accountState {
	return &accountState{
		uid: account.UID, credentials: account.Spec.Credentials, zones: map[string]zoneRead{},
		isCarried: account.Status.ObservedGeneration == account.Generation,
	}
}

// check reads the credentials of an account, and the quotas of its zones that are due.
func (r *Reconciler) check(ctx context.Context, account *v1alpha1.EdgeOneAccount, s *accountState) {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	s.checkAt = time.Now().Add(r.RecheckInterval)
	if s.refusal.err != nil {
		r.Credentials.ForgetCredentials(keyOf(account)) // somebody may have replaced them
	}
	creds, err := r.Credentials.GetCredentials(ctx, keyOf(account))
	s.recordKeys(account, creds, err, time.Now())
	if err != nil {
		return
	}
	_, _, _, used := r.Accounts.Usage.CountToday(account.Name)
	ctx = teo.InLine(ctx, keyOf(account).String())
	for _, zone := range s.dueZones(zonesOf(account, used), used, time.Now()) {
		quota, err := r.EdgeOne.DescribeContentQuota(ctx, creds, zone)
		if !s.recordRead(zone, quota, used[zone], err, time.Now()) {
			log.FromContext(ctx).V(1).Info("Could not read the quota", "account", account.Name, "zone", zone, "error", err.Error())
			return
		}
	}
}

// recordKeys records the result of reading the credentials.
func (s *accountState) recordKeys(account *v1alpha1.EdgeOneAccount, creds teo.Credentials, err error, now time.Time) {
	s.trouble = nil
	switch {
	case err != nil && needsUser(err):
		s.refusal = refusal{err, now}
		return
	case err != nil:
		s.trouble = err
		return
	}
	if isKeysError(s.refusal.err) {
		s.refusal = refusal{}
	}
	keys := identityOf(creds)
	if keys != s.keys {
		if s.keys != (keyIdentity{}) { // another key in the same Secret
			s.keysNew, s.changedAt = now, now
			s.refusal, s.zones = refusal{}, map[string]zoneRead{}
		}
		s.isCarried = s.isCarried && s.keys == (keyIdentity{}) && account.Status.Principal == keys.principal
		s.keys = keys
	}
	s.keysAt = now
}

// isKeysError says whether an error is about getting keys, and not about EdgeOne's answer
// to them. EdgeOne's refusals have a code.
func isKeysError(err error) bool {
	return errors.Is(err, credentials.ErrMissing) || errors.Is(err, sts.ErrRole) || teo.KindOf(err) == teo.Denied && teo.Code(err) == ""
}

// recordRead records the result of a read of a zone's quota. used is what the account had used of the
// zone before. recordRead returns false if further reads are of no use.
func (s *accountState) recordRead(zone string, quota teo.ContentQuota, used int, err error, now time.Time) bool {
	switch {
	case err == nil, errors.Is(err, teo.ErrZeroQuota): // then, the quota of prefetches is zero
		s.zones[zone] = zoneRead{quota: &quota, used: used, at: now}
	case teo.KindOf(err) == teo.Rejected:
		s.zones[zone] = zoneRead{used: used, at: now}
	case teo.DeniedAccount(err):
		s.refusal = refusal{err, now}
		return false
	case teo.KindOf(err) == teo.Denied:
		s.zones[zone] = zoneRead{err: err, used: used, at: now}
	default:
		s.trouble = err
		return false
	}
	if s.refusal.err != nil {
		s.refusal = refusal{} // EdgeOne knows the key
	}
	return true
}

// dueZones returns the zones whose quota is to be read now, those that were read longest ago
// first. Without a zone that EdgeOne answers for, the next few zones are due at each check,
// because an answer is what proves the credentials. used is what the account has used of each zone.
func (s *accountState) dueZones(zones []string, used map[string]int, now time.Time) []string {
	most, proved := maxProofs, false
	for _, zone := range zones {
		if read, ok := s.zones[zone]; ok && read.err == nil && s.refusal.err == nil {
			most, proved = maxReads, true
		}
	}
	due := slices.DeleteFunc(slices.Clone(zones), func(zone string) bool {
		read, ok := s.zones[zone]
		return ok && proved && now.Sub(read.at) < quotaInterval && read.used == used[zone]
	})
	slices.SortStableFunc(due, func(a, b string) int { return s.zones[a].at.Compare(s.zones[b].at) })
	return due[:min(len(due), most)]
}

// maxZones is how many zones a status has.
const maxZones = 100

// allZones is the zone ID of calls with targets of several zones. It has no quota.
const allZones = "*"

// zonesOf returns the zones of an account that have a quota: first those of the spec, and
// then those that tasks have used most.
func zonesOf(account *v1alpha1.EdgeOneAccount, used map[string]int) []string {
	return slices.DeleteFunc(shownZones(account, used), func(zone string) bool { return zone == allZones })
}

// shownZones returns the zones in the status of an account: those of the spec, and then those
// that tasks have used most.
func shownZones(account *v1alpha1.EdgeOneAccount, used map[string]int) []string {
	var zones []string
	for _, zone := range account.Spec.Zones {
		zones = append(zones, zone.ID)
	}
	var others []string
	for zone, n := range used {
		if n > 0 && !slices.Contains(zones, zone) {
			others = append(others, zone)
		}
	}
	slices.SortFunc(others, func(a, b string) int { return cmp.Or(used[b]-used[a], cmp.Compare(a, b)) })
	others = others[:min(len(others), max(0, maxZones-len(zones)))]
	slices.Sort(others)
	return append(zones, others...)
}
