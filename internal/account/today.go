package account

import (
	"time"

	"k8s.io/utils/ptr"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// AdvanceDay returns an account whose status is about the day of now. The operator writes a status
// only when there is something to write: if a day has begun since, nothing is used of it, and all of
// each quota and budget is left. The account itself stays as it is.
func AdvanceDay(account *v1alpha1.EdgeOneAccount, now time.Time) *v1alpha1.EdgeOneAccount {
	const day = 24 * time.Hour
	passed := now.Sub(account.Status.DayStartTime.Time).Truncate(day)
	if account.Status.DayStartTime.IsZero() || passed < day {
		return account
	}
	today := account.DeepCopy()
	status := &today.Status
	status.DayStartTime.Time = status.DayStartTime.Add(passed)
	status.Used, status.Left = ptr.To[int32](0), today.Spec.Limits.DailyURLs
	for i := range status.Zones {
		zone := &status.Zones[i]
		zone.Used, zone.Left = ptr.To[int32](0), zone.Daily
		for k := range zone.Purges {
			zone.Purges[k].Left = zone.Purges[k].Daily
		}
	}
	status.Namespaces = nil
	return today
}
