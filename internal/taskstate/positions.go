package taskstate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/prefetch-operator/teo-prefetch-operator/api/v1alpha1"
)

// Positions are places in a task's distinct targets, ascending, counted from 0.
type Positions []int

// AllPositions returns the first n positions.
func AllPositions(n int) Positions {
	p := make(Positions, n)
	for i := range p {
		p[i] = i
	}
	return p
}

// String writes positions as ranges: "0-1999,2004".
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

// MaxTargets is how many targets a task may have. It bounds what ParsePositions
// expands: a status can be edited by hand.
const MaxTargets = 10_000

// ParsePositions reads what String writes. The empty text is no positions.
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

// CoveredPositions reads positions that the operator itself wrote of a run of n targets. A
// status that was edited into nonsense, positions beyond n included, counts as
// all of them: such targets are taken for handed over, as submitting twice would
// be worse than not at all.
func CoveredPositions(text string, n int) Positions {
	p, err := ParsePositions(text)
	if err != nil || len(p) > 0 && p[len(p)-1] >= n {
		return AllPositions(n)
	}
	return p
}

// Union returns the positions that are in p or in q.
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

// IsSubsetOf returns the positions of p that are in q.
func (p Positions) IsSubsetOf(q Positions) Positions { return p.Minus(p.Minus(q)) }

// Minus returns the positions of p that are not in q.
func (p Positions) Minus(q Positions) Positions {
	if len(q) == 0 {
		return p
	}
	var rest Positions
	for _, i := range p {
		for len(q) > 0 && q[0] < i {
			q = q[1:]
		}
		if len(q) == 0 || q[0] != i {
			rest = append(rest, i)
		}
	}
	return rest
}

// knowsTargets says whether the targets of the status's run are known: not if the
// spec no longer asks for it, or they are in a ConfigMap that has other ones.
func knowsTargets(task *v1alpha1.PrefetchTask) bool {
	return !IsNewRun(task) && !IsUnresolved(task) && !IsElided(task)
}

// statusPositions reads positions in the status. Those of a run that the spec no longer
// asks for stay as they are: its targets are not known any more, and the spec may
// be changed back to it.
func statusPositions(task *v1alpha1.PrefetchTask, text string) Positions {
	if !knowsTargets(task) {
		positions, _ := ParsePositions(text)
		return positions
	}
	return CoveredPositions(text, CountTargets(task))
}
