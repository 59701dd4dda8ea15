{{/* The chart's name in labels. */}}
{{- define "teo.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* The name of all objects: one that a Service may have, which a release's name need not
be. 45 characters leave room for what is added to it. */}}
{{- define "teo.fullname" -}}
{{- $name := include "teo.name" . -}}
{{- $full := .Values.fullnameOverride -}}
{{- if not $full -}}
{{- $full = contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) | replace "." "-" -}}
{{- end -}}
{{- if regexMatch "^[0-9]" $full -}}
{{- fail (printf "%s cannot be the name of a Service, which begins with a letter: set fullnameOverride" $full) -}}
{{- end -}}
{{- $full | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{/* What selects the pods of the manager and of the check. */}}
{{- define "teo.podLabels" -}}
app.kubernetes.io/name: {{ include "teo.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What selects the manager's pods. */}}
{{- define "teo.selectorLabels" -}}
{{ include "teo.podLabels" . }}
app.kubernetes.io/component: manager
{{- end -}}

{{/* The labels of every object. */}}
{{- define "teo.labels" -}}
{{- include "teo.labelsAnd" (list . dict) -}}
{{- end -}}

{{/* The labels of an object that has some of its own, which win. Takes the context and them. */}}
{{- define "teo.labelsAnd" -}}
{{- $ := index . 0 -}}
{{- $all := include "teo.podLabels" $ | fromYaml -}}
{{- $_ := set $all "app.kubernetes.io/version" $.Chart.AppVersion -}}
{{- $_ := set $all "app.kubernetes.io/managed-by" $.Release.Service -}}
{{- $_ := set $all "helm.sh/chart" (printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") -}}
{{- mustMergeOverwrite $all ($.Values.commonLabels | default dict) (index . 1 | default dict) | toYaml -}}
{{- end -}}

{{- define "teo.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "teo.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* The manager's ServiceAccount as the subjects of a binding. */}}
{{- define "teo.subjects" -}}
- kind: ServiceAccount
  name: {{ include "teo.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end -}}

{{- define "teo.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{/* The URL of the EdgeOne API. */}}
{{- define "teo.endpoint" -}}
{{- $hosts := dict "international" "teo.intl.tencentcloudapi.com" "china" "teo.tencentcloudapi.com" -}}
{{- $endpoint := .Values.edgeone.endpoint | default (get $hosts .Values.edgeone.site) -}}
{{- if contains "://" $endpoint }}{{ $endpoint }}{{ else }}https://{{ $endpoint }}{{ end -}}
{{- end -}}

{{/* The Secret with the operator's own credentials; empty if there is none. */}}
{{- define "teo.credentialsSecret" -}}
{{- if .Values.credentials.secretId -}}
{{ include "teo.fullname" . }}-credentials
{{- else -}}
{{ .Values.credentials.existingSecret }}
{{- end -}}
{{- end -}}

{{/* The arguments that the manager and its check have in common. */}}
{{- define "teo.args" -}}
- --teo-endpoint={{ include "teo.endpoint" . }}
- --teo-qps={{ .Values.edgeone.qps }}
{{- if include "teo.credentialsSecret" . }}
- --credentials-dir=/etc/teo-credentials
{{- end }}
{{- with .Values.watchNamespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
{{- if .Values.leaderElection.enabled }}
- --leader-elect
- --leader-election-namespace={{ .Release.Namespace }}
{{- if ne (include "teo.fullname" .) "teo-prefetch-operator" }}
- --leader-election-id={{ include "teo.fullname" . }}
{{- end }}
{{- end }}
- --metrics-bind-address={{ if .Values.metrics.enabled }}:{{ .Values.metrics.port }}{{ else }}0{{ end }}
{{- if and .Values.metrics.enabled (not .Values.metrics.secure) }}
- --metrics-secure=false
{{- end }}
- --zap-log-level={{ .Values.log.level }}
- --zap-encoder={{ .Values.log.encoder }}
{{- end -}}

{{/* The parts of a container that the manager and its check have in common. */}}
{{- define "teo.container" -}}
image: {{ include "teo.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.extraEnv }}
env:
{{ toYaml . }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
{{ toYaml . }}
{{- end }}
{{- with .Values.securityContext }}
securityContext:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .Values.resources }}
resources:
{{ toYaml . | indent 2 }}
{{- end }}
{{- if or (include "teo.credentialsSecret" .) .Values.extraVolumeMounts }}
volumeMounts:
{{- if include "teo.credentialsSecret" . }}
- name: teo-credentials
  mountPath: /etc/teo-credentials
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The parts of a pod that the manager and its check have in common. */}}
{{- define "teo.pod" -}}
serviceAccountName: {{ include "teo.serviceAccountName" . }}
automountServiceAccountToken: true
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
{{ toYaml . }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
{{ toYaml . }}
{{- end }}
{{- with .Values.affinity }}
affinity:
{{ toYaml . | indent 2 }}
{{- end }}
{{- if or (include "teo.credentialsSecret" .) .Values.extraVolumes }}
volumes:
{{- with include "teo.credentialsSecret" . }}
- name: teo-credentials
  secret:
    secretName: {{ . }}
    optional: {{ and $.Values.credentials.optional (not $.Values.credentials.secretId) }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The rules of a role in config/rbac. Takes the context and the file's name. */}}
{{- define "teo.rules" -}}
rules:
{{ (index . 0).Files.Get (printf "files/rbac/%s.yaml" (index . 1)) | fromYaml | dig "rules" list | toYaml }}
{{- end -}}
