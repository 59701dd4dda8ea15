package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/prefetch-operator/teo-prefetch-operator/test/cluster"
)

// Series is a time series in a response from Prometheus.
type Series struct {
	Labels map[string]string
	Points []Point
}

// Point is a value at a time.
type Point struct {
	Time  time.Time
	Value float64
}

// HasNumber reports whether any of the values is a number.
func (s Series) HasNumber() bool {
	for _, p := range s.Points {
		if !math.IsNaN(p.Value) && !math.IsInf(p.Value, 0) {
			return true
		}
	}
	return false
}

// Query returns the current value of an expression from Prometheus.
func (w *Stack) Query(ctx context.Context, expr string) ([]Series, error) {
	return w.query(ctx, "/api/v1/query", url.Values{"query": {expr}})
}

// QueryRange returns the values of an expression over a time range from Prometheus.
func (w *Stack) QueryRange(ctx context.Context, expr string, start, end time.Time, step time.Duration) ([]Series, error) {
	unix := func(t time.Time) []string {
		return []string{strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)}
	}
	return w.query(ctx, "/api/v1/query_range", url.Values{
		"query": {expr}, "start": unix(start), "end": unix(end), "step": {fmt.Sprint(step.Seconds())},
	})
}

func (w *Stack) query(ctx context.Context, path string, values url.Values) ([]Series, error) {
	var data struct {
		Result []struct {
			Metric map[string]string
			Value  point
			Values []point
		}
	}
	if err := w.get(ctx, path+"?"+values.Encode(), &data); err != nil {
		return nil, fmt.Errorf("%s: %w", values.Get("query"), err)
	}
	var all []Series
	for _, result := range data.Result {
		s := Series{Labels: result.Metric}
		if !result.Value.Time.IsZero() {
			s.Points = append(s.Points, Point(result.Value))
		}
		for _, p := range result.Values {
			s.Points = append(s.Points, Point(p))
		}
		all = append(all, s)
	}
	return all, nil
}

// RuleHealth returns, for each alert that Prometheus has loaded, the state of its
// evaluation: ok, unknown (not evaluated yet), or the error.
func (w *Stack) RuleHealth(ctx context.Context) (map[string]string, error) {
	var data struct {
		Groups []struct {
			Rules []struct{ Name, Health, LastError string }
		}
	}
	if err := w.get(ctx, "/api/v1/rules", &data); err != nil {
		return nil, err
	}
	health := map[string]string{}
	for _, group := range data.Groups {
		for _, rule := range group.Rules {
			health[rule.Name] = rule.Health
			if rule.LastError != "" {
				health[rule.Name] = rule.LastError
			}
		}
	}
	return health, nil
}

func (w *Stack) get(ctx context.Context, path string, data any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer := struct {
		Status, Error string
		Data          any
	}{Data: data}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return err
	}
	if answer.Status != "success" {
		return fmt.Errorf("prometheus: %s", answer.Error)
	}
	return nil
}

// point is a Point in Prometheus's format: [1700000000.5, "1.25"].
type point Point

// UnmarshalJSON parses this format.
func (p *point) UnmarshalJSON(text []byte) error {
	var seconds float64
	var value string
	if err := json.Unmarshal(text, &[]any{&seconds, &value}); err != nil {
		return err
	}
	number, err := strconv.ParseFloat(value, 64)
	*p = point{time.UnixMilli(int64(seconds * 1000)), number}
	return err
}

// Dashboard has the parts of a Grafana dashboard that its queries need.
type Dashboard struct {
	Panels     []Panel
	Templating struct {
		List []struct{ Name, Definition, AllValue string }
	}
}

// labelValues matches the query of a variable, as Grafana writes it.
var labelValues = regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`)

// Job returns the value of $job in Grafana if All is selected, which is the default: the
// variable's allValue, or else all its values. It returns "" if there are no values yet.
func (w *Stack) Job(ctx context.Context, d Dashboard) (string, error) {
	for _, variable := range d.Templating.List {
		if variable.Name != "job" {
			continue
		}
		if variable.AllValue != "" {
			return variable.AllValue, nil
		}
		m := labelValues.FindStringSubmatch(variable.Definition)
		if m == nil {
			return "", fmt.Errorf("the variable job is not one of label values: %s", variable.Definition)
		}
		var values []string
		err := w.get(ctx, "/api/v1/label/"+m[2]+"/values?"+url.Values{"match[]": {m[1]}}.Encode(), &values)
		return strings.Join(values, "|"), err
	}
	return "", errors.New("the dashboard has no variable job")
}

// Panel is a panel of a dashboard.
type Panel struct {
	Title   string
	Type    string
	GridPos struct{ X, Y, W, H int }
	Targets []Target

	FieldConfig struct {
		Defaults struct {
			Unit string
			Max  *float64
		}
	}
}

// Target is a query of a panel.
type Target struct{ Expr, LegendFormat string }

// ReadDashboard reads the chart's dashboard.
func ReadDashboard() (Dashboard, error) {
	var dashboard Dashboard
	root, err := cluster.FindRoot()
	if err != nil {
		return dashboard, err
	}
	text, err := os.ReadFile(filepath.Join(root, DashboardFile))
	if err != nil {
		return dashboard, err
	}
	return dashboard, json.Unmarshal(text, &dashboard)
}

// Query returns the expression with Grafana's variables replaced.
func (t Target) Query(job string) string {
	return strings.NewReplacer("$__rate_interval", "20s", "$job", job).Replace(t.Expr)
}

// Legend returns the name of a series.
func (t Target) Legend(s Series) string {
	legend := t.LegendFormat
	for name, value := range s.Labels {
		legend = strings.ReplaceAll(legend, "{{"+name+"}}", value)
	}
	return legend
}

// Alert is an alerting rule.
type Alert struct {
	Alert, Expr         string
	Labels, Annotations map[string]string
}

// ReadAlerts reads the chart's alerts.
func ReadAlerts() ([]Alert, error) {
	root, err := cluster.FindRoot()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(root, Alerts))
	if err != nil {
		return nil, err
	}
	var rules struct {
		Groups []struct{ Rules []Alert }
	}
	if err := yaml.Unmarshal(text, &rules); err != nil {
		return nil, err
	}
	var alerts []Alert
	for _, group := range rules.Groups {
		alerts = append(alerts, group.Rules...)
	}
	return alerts, nil
}
