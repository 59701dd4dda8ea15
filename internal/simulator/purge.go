package simulator

import (
	"cmp"
	"slices"
	"strings"
)

// The methods of a purge.
const (
	methodInvalidate = "invalidate" // the copies count as expired
	methodDelete     = "delete"     // the copies are gone
)

// createPurgeTask starts a job that purges URLs, or everything below a prefix, of a host,
// with a tag, or of a zone.
func (s *Simulator) createPurgeTask(c *call) (map[string]any, *apiError) {
	sub, err := s.parsePurge(c)
	if err != nil {
		return nil, err
	}
	return s.submit(c, sub)
}

// parsePurge runs the checks that refuse a purge as a whole.
func (s *Simulator) parsePurge(c *call) (submission, *apiError) {
	purgeType, method := c.text("Type"), cmp.Or(c.text("Method"), methodInvalidate)
	sub := submission{jobKind: jobKind{
		action: createPurge, taskType: purgeType, method: purgeMethod(purgeType, method),
		domains: c.cacheTagDomains(), encode: c.encodesURL(),
	}}
	switch {
	case !slices.Contains(purgeTypes, purgeType):
		return sub, badParameter("Type is %q, not one of %s.", purgeType, strings.Join(purgeTypes, ", "))
	case method != methodInvalidate && method != methodDelete:
		return sub, badParameter("Method is %q, not invalidate or delete.", method)
	case purgeType == purgeAll && c.ZoneID == "*":
		return sub, badParameter("The type purge_all needs one zone.")
	case purgeType != purgeAll && len(c.targets) == 0:
		return sub, fail("MissingParameter", "The request is missing the parameter `Targets`.")
	case purgeType == purgeCacheTag && sub.domains == nil && (s.config.RequireCacheTag || c.ZoneID == "*"):
		return sub, fail("MissingParameter", "The request is missing the parameter `CacheTag`.")
	}
	zones, err := s.zonesOf(c)
	if err != nil {
		return sub, err
	}
	slices.SortFunc(zones, func(a, b *zone) int { return strings.Compare(a.ID, b.ID) })
	switch purgeType {
	case purgeAll:
		sub.records = []record{{zone: zones[0], url: zones[0].ID}}
	case purgeCacheTag:
		sub.records, err = placeTags(c.targets, sub.domains, zones)
	default:
		sub.records, err = sub.place(c.targets, zones)
	}
	return sub, err
}

// purgeMethod returns the method of a purge. By URL and by tag, EdgeOne always deletes.
func purgeMethod(purgeType, method string) string {
	if purgeType == purgeURL || purgeType == purgeCacheTag {
		return methodDelete
	}
	return method
}

// placeTags returns a record for each tag. The first domain decides the zone whose quota
// the tags use; without domains, it is the first zone. All domains must belong to the
// zones.
func placeTags(tags, domains []string, zones []*zone) ([]record, *apiError) {
	owner := zones[0]
	for i, domain := range domains {
		at := slices.IndexFunc(zones, func(z *zone) bool { return z.serves(domain) })
		if at < 0 {
			return nil, fail("InvalidParameter.DomainNotFound", "The domain %s does not exist or belongs to another account.", domain)
		}
		if i == 0 {
			owner = zones[at]
		}
	}
	records := make([]record, 0, len(tags))
	for _, tag := range tags {
		if tag == "" || strings.ContainsAny(tag, " \t\r\n,") {
			return nil, fail("InvalidParameter.Target", "%q is not a cache tag.", tag)
		}
		records = append(records, record{zone: owner, url: tag})
	}
	return records, nil
}

// isPlainHost says whether a target is a host name, without a scheme, port, path or
// wildcard.
func isPlainHost(target string) bool {
	return target != "" && !strings.ContainsAny(target, "/:*?# \t\r\n")
}

// cacheTagDomains returns the domains of the parameter CacheTag.
func (c *call) cacheTagDomains() []string {
	tag, _ := c.params["CacheTag"].(map[string]any)
	if tag["Domains"] == nil {
		return nil
	}
	return texts(tag["Domains"])
}
