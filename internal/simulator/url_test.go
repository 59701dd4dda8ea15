package simulator

import (
	"fmt"
	"testing"
	"testing/synctest"
)

func TestCanonical(t *testing.T) {
	for _, spellings := range [][]string{
		{"https://h.example/%E4%B8%AD?q=%20", "https://h.example/中?q= ", "https://h.example/%e4%b8%ad?q=%20", "HTTPS://H.example:443/中?q=%20#there"},
		{"http://h.example/", "http://h.example", "http://h.example:80", "http://h.example:/#x"},
		{"http://h.example/?q", "http://h.example?q"},
		{"https://xn--fiq228c.example/a", "https://中文.example/a"},
		{"https://h.example/100%25", "https://h.example/100%"},
		{"http://[2001:db8::1]/", "http://[2001:DB8::1]:80"},
	} {
		for _, spelling := range spellings {
			expect(t, "the canonical form of "+spelling, Canonical(spelling), spellings[0])
		}
	}
	for _, distinct := range [][2]string{
		{"http://h.example/a", "https://h.example/a"},
		{"http://h.example/a", "http://h.example/A"},
		{"http://h.example/a", "http://h.example/a/"},
		{"http://h.example/a", "http://h.example/a?"},
		{"http://h.example/a%2Fb", "http://h.example/a/b"},
		{"http://h.example:443/", "http://h.example/"},
		{"https://ı.example/", "https://i.example/"},
	} {
		if Canonical(distinct[0]) == Canonical(distinct[1]) {
			t.Errorf("%s and %s are taken for one URL", distinct[0], distinct[1])
		}
	}
}

func TestAURLThatACallHoldsTwiceIsExecutedAndListedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		c := inMemory(t, s)
		raw, encoded := example("中")[0], example("%E4%B8%AD")[0]
		r := c.call("CreatePrefetchTask", params{"ZoneId": exampleZone, "Targets": []string{raw, encoded, encoded}})
		listed := map[string]int{}
		for _, task := range c.job(r.JobID).Tasks {
			listed[task.Target]++
		}
		expect(t, "listed", fmt.Sprint(listed), fmt.Sprint(map[string]int{raw: 1, encoded: 2}))
		expect(t, "quota", c.quota(exampleZone), 9997)
		expect(t, "executed three times", s.Duplicates()[exampleZone+" default "+encoded], 3)
	})
}

func TestEncodeURLEncodesWhatTheCallerEncoded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Demo())
		defer s.Close()
		sent := example("中 a?b=c", "%E4%B8%AD")
		r := inMemory(t, s).call("CreatePrefetchTask", params{"ZoneId": exampleZone, "Targets": sent, "EncodeUrl": true})
		expect(t, "code", r.code, "")
		expect(t, "fetched", fmt.Sprint(s.Ledger()[0].Fetched), fmt.Sprint(example("%E4%B8%AD%20a?b=c", "%25E4%25B8%25AD")))
	})
}
