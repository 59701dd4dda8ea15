package simulator

import (
	"slices"
	"time"
)

// task is an element of DescribePrefetchTasks' list.
type task struct {
	JobId, Target, Type, Method, Status, CreateTime, UpdateTime, FailType, FailMessage string
}

// lookup is a DescribePrefetchTasks request.
type lookup struct {
	zones      []*zone
	start, end time.Time // both inclusive; zero: no window
	jobID      string
	target     string
	domains    []string
	statuses   []string
}

func (s *Simulator) describePrefetchTasks(c *call) (map[string]any, *apiError) {
	q, err := s.parseLookup(c)
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
	jobs, err := s.findJobs(q.jobID)
	if err != nil {
		return nil, err
	}
	tasks, total := q.listPage(jobs, offset, size)
	if most := s.config.MaxTotalCount; most > 0 {
		total = min(total, most)
	}
	return map[string]any{"TotalCount": total, "Tasks": tasks}, nil
}

// findJobs returns the job of an ID, if there is one, or all jobs if the ID is "".
func (s *Simulator) findJobs(id string) ([]*job, *apiError) {
	switch j := s.jobs[id]; {
	case id == "":
		return s.history, nil
	case s.rejectedIDs != nil && s.rejectedIDs.MatchString(id):
		return nil, badParameter("The job-id %q is not valid.", id)
	case j == nil:
		return nil, nil
	default:
		return []*job{j}, nil
	}
}

// listPage lists the records of the jobs that match, the newest job first: at most size
// of them, from an offset. It counts all that match.
func (q *lookup) listPage(jobs []*job, offset, size int) (tasks []task, total int) {
	tasks = []task{} // in JSON it is [], not null
	now := time.Now()
	for _, j := range slices.Backward(jobs) {
		if !q.inWindow(j.created) {
			continue
		}
		for i := range j.records {
			r := &j.records[i]
			if !q.matches(r, now) {
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

func (s *Simulator) parseLookup(c *call) (q lookup, err *apiError) {
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

// addFilter adds an element of Filters.
func (q *lookup) addFilter(filter map[string]any) *apiError {
	name, values := filter["Name"].(string), texts(filter["Values"])
	single := name == "job-id" || name == "target"
	switch {
	case filter["Fuzzy"] == true:
		return badParameter("The filter %s cannot be fuzzy.", name)
	case len(values) == 0, len(values) > 20, single && len(values) > 1:
		return badParameter("The filter %s has %d values.", name, len(values))
	}
	switch name {
	case "job-id":
		q.jobID = values[0]
	case "target":
		q.target = values[0]
	case "domains":
		q.domains = values
	case "statuses":
		q.statuses = values
	default:
		return badParameter("The filter %q does not exist.", name)
	}
	return nil
}

// parseWindow reads StartTime and EndTime, both of which must be there.
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

// checkWindow refuses a window that EdgeOne does not look through.
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

func (q *lookup) matches(r *record, now time.Time) bool {
	return !now.Before(r.listedAt) &&
		slices.Contains(q.zones, r.zone) &&
		(q.target == "" || q.target == r.url) &&
		(q.domains == nil || slices.Contains(q.domains, r.host)) &&
		(q.statuses == nil || slices.Contains(q.statuses, r.statusAt(now)))
}

// task returns a record as it is listed.
func (j *job) task(r *record, now time.Time) task {
	t := task{JobId: j.id, Target: r.url, Type: "prefetch_url", Status: r.statusAt(now), CreateTime: j.created.Format(time.RFC3339)}
	t.UpdateTime = t.CreateTime
	if r.finished(now) {
		t.UpdateTime = j.created.Add(r.endsAt.Sub(j.accepted)).Format(time.RFC3339)
		t.FailType, t.FailMessage = r.failType, r.failMessage
	}
	return t
}
