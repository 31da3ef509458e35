package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The words of PromQL that stand where a metric could.
const promWords = "and or unless by without on ignoring group_left group_right bool offset inf nan"

var (
	promText    = regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	promLabels  = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)`)
	promMatch   = regexp.MustCompile(`\{[^}]*\}`)
	promRange   = regexp.MustCompile(`\[[^\]]*\]`)
	promName    = regexp.MustCompile(`[a-zA-Z_:][a-zA-Z0-9_:]*`)
	promCall    = regexp.MustCompile(`^\s*\(`)
	promGrafana = regexp.MustCompile(`\$__rate_interval|\$[a-z]+`)
)

// metricsOf returns the names of the metrics in a PromQL expression: what is
// left when texts, labels, ranges, words and functions are gone.
func metricsOf(expr string) []string {
	expr = promText.ReplaceAllString(expr, "")
	for _, gone := range []*regexp.Regexp{promLabels, promMatch, promRange} {
		expr = gone.ReplaceAllString(expr, " ")
	}
	var names []string
	for _, at := range promName.FindAllStringIndex(expr, -1) {
		name := expr[at[0]:at[1]]
		switch {
		case at[0] > 0 && (expr[at[0]-1] >= '0' && expr[at[0]-1] <= '9' || expr[at[0]-1] == '.'): // 5m, 1e9
		case slices.Contains(strings.Fields(promWords), strings.ToLower(name)), promCall.MatchString(expr[at[1]:]):
		case regexp.MustCompile(`^(sum|min|max|avg|count|topk|quantile)$`).MatchString(name): // sum by (…) (…)
		default:
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// familyOf is the name of a metric without the suffixes of its series.
func familyOf(name string) string {
	for _, suffix := range []string{"_bucket", "_count", "_sum"} {
		if base, cut := strings.CutSuffix(name, suffix); cut && strings.HasSuffix(base, "_seconds") {
			return base
		}
	}
	return name
}

// plainExpr is an expression of a dashboard as Prometheus gets it.
func plainExpr(expr string) string {
	return promGrafana.ReplaceAllStringFunc(expr, func(v string) string {
		if v == "$__rate_interval" {
			return "5m"
		}
		return ".+"
	})
}

func TestMetricsOf(t *testing.T) {
	for _, c := range []struct{ expr, want string }{
		{`up{job=~"keyd.*"} == 0`, "up"},
		{`sum by (a, le) (rate(x_bucket{b="c d"}[5m])) / ignoring (s) group_left sum (rate(y[$__rate_interval]))`, "x_bucket y"},
		{`histogram_quantile(0.99, sum by (job) (rate(z_seconds_bucket[5m]))) > 0.1 and on (job) build`, "build z_seconds_bucket"},
		{`min_over_time(m[30m] offset 1d) > 536870912`, "m"},
		{`predict_linear(free[6h], 3 * 86400) < 0 or n > 1e9`, "free n"},
	} {
		if got := strings.Join(metricsOf(plainExpr(c.expr)), " "); got != c.want {
			t.Errorf("%s: %q, want %q", c.expr, got, c.want)
		}
	}
}
