package simulator

import (
	"slices"
	"strings"
	"time"
)

// task is an element of the list that DescribePrefetchTasks and DescribePurgeTasks return.
type task struct {
	JobId, Target, Type, Method, Status, CreateTime, UpdateTime, FailType, FailMessage string
}

// lookup is a DescribePrefetchTasks or DescribePurgeTasks request.
type lookup struct {
	action     string // of the jobs: createPrefetch or createPurge
	zones      []*zone
	start, end time.Time // both inclusive; zero means no window
	jobID      string
	target     string
	isFuzzy    bool // target is a part of the targets
	taskType   string
	domains    []string
	statuses   []string
}

// describePrefetchTasks looks into the history of prefetches.
func (s *Simulator) describePrefetchTasks(c *call) (map[string]any, *apiError) {
	return s.describeTasks(c, createPrefetch)
}

// describePurgeTasks looks into the history of purges.
func (s *Simulator) describePurgeTasks(c *call) (map[string]any, *apiError) {
	return s.describeTasks(c, createPurge)
}

// describeTasks returns one page of the matching records, 20 by default.
func (s *Simulator) describeTasks(c *call, action string) (map[string]any, *apiError) {
	q, err := s.parseLookup(c, action)
	if err != nil {
		return nil, err
	}
	offset, size := c.integer("Offset", 0), c.integer("Limit", 20)
	if offset < 0 {
		return nil, badParameter("Offset is negative.")
	}
	if size < 1 || size > 1000 {
		return nil, badParameter("Limit is %d, not 1 to 1000.", size)
	}
	jobs, err := s.findJobs(action, q.jobID)
	if err != nil {
		return nil, err
	}
	tasks, total := q.listPage(jobs, offset, size)
	if most := s.config.MaxTotalCount; most > 0 {
		total = min(total, most)
	}
	return map[string]any{"TotalCount": total, "Tasks": tasks}, nil
}

// findJobs returns the job of an action with an ID, if it exists, or all of its jobs if
// the ID is "". It refuses an ID that the configuration rejects.
func (s *Simulator) findJobs(action, id string) ([]*job, *apiError) {
	switch j := s.jobs[id]; {
	case id == "":
		return s.histories[action], nil
	case s.rejectedIDs != nil && s.rejectedIDs.MatchString(id):
		return nil, badParameter("The job-id %q is not valid.", id)
	case j == nil || j.action != action:
		return nil, nil
	default:
		return []*job{j}, nil
	}
}

// listPage returns at most size matching records, starting at offset, with the newest job
// first. total counts all matching records.
func (q *lookup) listPage(jobs []*job, offset, size int) (tasks []task, total int) {
	tasks = []task{} // [] in JSON, not null
	now := time.Now()
	for _, j := range slices.Backward(jobs) {
		if !q.inWindow(j.created) {
			continue
		}
		for i := range j.records {
			r := &j.records[i]
			if !q.matches(j, r, now) {
				continue
			}
			if total >= offset && len(tasks) < size {
				tasks = append(tasks, j.task(r, now))
			}
			total++
		}
	}
	return tasks, total
}

// parseLookup reads the parameters. Only a lookup with the filter job-id may omit the
// window.
func (s *Simulator) parseLookup(c *call, action string) (q lookup, err *apiError) {
	q.action = action
	if c.ZoneID == "*" && !s.config.WildcardLookups {
		return q, badParameter("ZoneId * is not accepted here.")
	}
	if q.zones, err = s.zonesOf(c); err != nil {
		return q, err
	}
	for _, f := range c.objects("Filters") {
		if err := q.addFilter(f); err != nil {
			return q, err
		}
	}
	start, end := c.text("StartTime"), c.text("EndTime")
	if start == "" && end == "" && q.jobID != "" {
		return q, nil
	}
	if err := q.parseWindow(start, end); err != nil {
		return q, err
	}
	return q, s.checkWindow(q)
}

// addFilter reads an element of Filters.
func (q *lookup) addFilter(filter map[string]any) *apiError {
	name, values, isFuzzy := filter["Name"].(string), texts(filter["Values"]), filter["Fuzzy"] == true
	if err := q.checkFilter(name, values, isFuzzy); err != nil {
		return err
	}
	switch name {
	case "job-id":
		q.jobID = values[0]
	case "target":
		q.target, q.isFuzzy = values[0], isFuzzy
	case "type":
		q.taskType = values[0]
	case "domains":
		q.domains = values
	case "statuses":
		q.statuses = values
	}
	return nil
}

// checkFilter refuses a filter that the history does not have. Only purges have types,
// fuzzy targets, and no status invalid.
func (q *lookup) checkFilter(name string, values []string, isFuzzy bool) *apiError {
	names, single := []string{"job-id", "target", "domains", "statuses"}, []string{"job-id", "target", "type"}
	isPurge := q.action == createPurge
	if isPurge {
		names = append(names, "type")
	}
	switch {
	case !slices.Contains(names, name):
		return badParameter("The filter %q does not exist.", name)
	case isFuzzy && (!isPurge || name != "target"):
		return badParameter("The filter %s cannot be fuzzy.", name)
	case len(values) == 0, len(values) > 20, len(values) > 1 && slices.Contains(single, name):
		return badParameter("The filter %s has %d values.", name, len(values))
	case name == "type" && !slices.Contains(purgeTypes, values[0]):
		return badParameter("The type %q does not exist.", values[0])
	case name == "statuses" && isPurge && slices.Contains(values, "invalid"):
		return badParameter("A purge has no status invalid.")
	}
	return nil
}

// parseWindow reads StartTime and EndTime. Both are required.
func (q *lookup) parseWindow(start, end string) *apiError {
	if start == "" || end == "" {
		return fail("MissingParameter", "The request needs StartTime and EndTime, or the filter job-id.")
	}
	var bad [2]error
	q.start, bad[0] = time.Parse(time.RFC3339, start)
	q.end, bad[1] = time.Parse(time.RFC3339, end)
	if bad[0] != nil || bad[1] != nil {
		return badParameter("StartTime or EndTime is not an ISO 8601 time.")
	}
	return nil
}

// checkWindow refuses a window that EdgeOne does not accept.
func (s *Simulator) checkWindow(q lookup) *apiError {
	switch {
	case q.end.Before(q.start):
		return badParameter("EndTime is before StartTime.")
	case s.config.NoFutureWindows && q.end.After(s.now()):
		return badParameter("EndTime is in the future.")
	case s.config.MaxWindow > 0 && q.end.Sub(q.start) > s.config.MaxWindow:
		return badParameter("The time range exceeds %s.", s.config.MaxWindow)
	}
	return nil
}

func (q *lookup) inWindow(t time.Time) bool {
	return q.start.IsZero() || !t.Before(q.start) && !t.After(q.end)
}

// matches says whether a record is already listed and passes all filters.
func (q *lookup) matches(j *job, r *record, now time.Time) bool {
	return !now.Before(r.listedAt) &&
		slices.Contains(q.zones, r.zone) &&
		(q.target == "" || q.target == r.url || q.isFuzzy && strings.Contains(r.url, q.target)) &&
		(q.taskType == "" || q.taskType == j.taskType) &&
		(q.domains == nil || slices.ContainsFunc(q.domains, func(domain string) bool { return j.concerns(r, domain) })) &&
		(q.statuses == nil || slices.Contains(q.statuses, r.statusAt(now)))
}

// concerns says whether a record belongs to a domain.
func (j *job) concerns(r *record, domain string) bool {
	switch {
	case r.host != "":
		return r.host == domain
	case j.domains != nil:
		return slices.Contains(j.domains, domain)
	default:
		return r.zone.serves(domain)
	}
}

// task returns a record as EdgeOne lists it.
func (j *job) task(r *record, now time.Time) task {
	t := task{JobId: j.id, Target: r.url, Type: j.taskType, Method: j.method, Status: r.statusAt(now), CreateTime: j.created.Format(time.RFC3339)}
	t.UpdateTime = t.CreateTime
	if r.finished(now) {
		t.UpdateTime = j.created.Add(r.endsAt.Sub(j.accepted)).Format(time.RFC3339)
		t.FailType, t.FailMessage = r.failType, r.failMessage
	}
	return t
}
