{{/* The groups of files/alerts.yaml, for the chart's namespace and with the changes in metrics.prometheusRule. */}}
{{- define "teo.alerts" -}}
{{- $values := .Values.metrics.prometheusRule -}}
{{- $file := .Files.Get "files/alerts.yaml" | replace "namespace=\"teo-prefetch-system\"" (include "teo.namespace" . | quote | printf "namespace=%s") | fromYaml -}}
{{- $known := list -}}
{{- range $group := $file.groups -}}
{{- $rules := list -}}
{{- range $rule := $group.rules -}}
{{- $known = append $known $rule.alert -}}
{{- $change := index $values.alerts $rule.alert | default dict -}}
{{- if dig "enabled" true $change -}}
{{- $rules = append $rules (include "teo.alert" (list $rule $change $values.alertLabels) | fromYaml) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $group "rules" $rules -}}
{{- end -}}
{{- range $name := keys $values.alerts | sortAlpha -}}
{{- if not (has $name $known) }}{{ fail (printf "metrics.prometheusRule.alerts has %s, which is no alert; the alerts are %s" $name (join ", " $known)) }}{{ end -}}
{{- end -}}
{{- $groups := $file.groups -}}
{{- with $values.extraRules -}}
{{- $groups = append $groups (dict "name" "teo-prefetch-operator-extra" "rules" .) -}}
{{- end -}}
{{- toYaml $groups -}}
{{- end -}}

{{/* One alert, changed. Takes the alert, its changes, and the labels of all alerts. The threshold is the number after
the first < or > of the expression. */}}
{{- define "teo.alert" -}}
{{- $rule := index . 0 -}}
{{- $change := index . 1 -}}
{{- if hasKey $change "threshold" -}}
{{- $threshold := "^([^<>]*[<>]=? *)[0-9.]+" -}}
{{- if not (regexMatch $threshold $rule.expr) }}{{ fail (printf "metrics.prometheusRule.alerts.%s has a threshold, and this alert has none" $rule.alert) }}{{ end -}}
{{- $_ := set $rule "expr" (regexReplaceAll $threshold $rule.expr (printf "${1}%v" $change.threshold)) -}}
{{- end -}}
{{- with $change.for }}{{ $_ := set $rule "for" . }}{{ end -}}
{{- $labels := mustMergeOverwrite (dict) $rule.labels (index . 2 | default dict) -}}
{{- with $change.severity }}{{ $_ := set $labels "severity" . }}{{ end -}}
{{- $_ := set $rule "labels" (mustMergeOverwrite $labels ($change.labels | default dict)) -}}
{{- $_ := set $rule "annotations" (mustMergeOverwrite (dict) $rule.annotations ($change.annotations | default dict)) -}}
{{- toYaml $rule -}}
{{- end -}}
