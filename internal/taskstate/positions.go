package taskstate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// Positions are indexes into a task's distinct targets, in ascending order. The first is
// 0.
type Positions []int

// AllPositions returns the first n positions.
func AllPositions(n int) Positions {
	p := make(Positions, n)
	for i := range p {
		p[i] = i
	}
	return p
}

// String returns positions as ranges: "0-1999,2004".
func (p Positions) String() string {
	var b strings.Builder
	for i := 0; i < len(p); {
		j := i
		for j+1 < len(p) && p[j+1] == p[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(p[i]))
		if j > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(p[j]))
		}
		i = j + 1
	}
	return b.String()
}

// MaxTargets is how many targets a task may have. It also bounds what ParsePositions
// expands, because a user can edit a status.
const MaxTargets = 10_000

// ParsePositions parses the format of String. Empty text means no positions.
func ParsePositions(text string) (Positions, error) {
	if text == "" {
		return nil, nil
	}
	var p Positions
	for part := range strings.SplitSeq(text, ",") {
		first, last, isRange := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && isRange {
			to, err = strconv.Atoi(last)
		}
		if err != nil || from < 0 || to < from || to >= MaxTargets || len(p) > 0 && from <= p[len(p)-1] {
			return nil, fmt.Errorf("%q is not a list of ascending ranges such as 0-1999,2004", text)
		}
		for i := from; i <= to; i++ {
			p = append(p, i)
		}
	}
	return p, nil
}

// CoveredPositions parses positions that the operator wrote for a run of n targets. If the
// text is invalid or contains a position beyond n, a user has edited the status. Then the
// text counts as all positions, so all targets count as handed over: submitting a target
// twice would be worse than not submitting it.
func CoveredPositions(text string, n int) Positions {
	p, err := ParsePositions(text)
	if err != nil || len(p) > 0 && p[len(p)-1] >= n {
		return AllPositions(n)
	}
	return p
}

// Union returns the positions that are in p, in q, or in both.
func (p Positions) Union(q Positions) Positions {
	if len(p) == 0 {
		return q
	}
	if len(q) == 0 {
		return p
	}
	u := slices.Concat(p, q)
	slices.Sort(u)
	return slices.Compact(u)
}

// Intersect returns the positions of p that are also in q.
func (p Positions) Intersect(q Positions) Positions { return p.Minus(p.Minus(q)) }

// Minus returns the positions of p that are not in q.
func (p Positions) Minus(q Positions) Positions {
	if len(q) == 0 {
		return p
	}
	var rest Positions
	for _, i := range p {
		// Both lists ascend, so one pass over q is enough.
		for len(q) > 0 && q[0] < i {
			q = q[1:]
		}
		if len(q) == 0 || q[0] != i {
			rest = append(rest, i)
		}
	}
	return rest
}

// knowsTargets reports whether the targets of the status's run are in memory. They are not
// if the spec asks for another run, if a ConfigMap now has other targets, or if the task
// is elided.
func knowsTargets(task *v1alpha1.PrefetchTask) bool {
	return !IsNewRun(task) && !IsUnresolved(task) && !IsElided(task)
}

// statusPositions parses positions in the status. If the targets of the run are unknown,
// it does not check the positions against their number. So the positions stay as they are,
// and a user can change the spec back to that run.
func statusPositions(task *v1alpha1.PrefetchTask, text string) Positions {
	if !knowsTargets(task) {
		positions, _ := ParsePositions(text)
		return positions
	}
	return CoveredPositions(text, CountTargets(task))
}
