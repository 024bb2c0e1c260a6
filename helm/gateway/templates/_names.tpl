{{- define "gateway.name" -}}
{{ .Values.name | default .Release.Name }}
{{- end }}

{{/* Labels that Gateway objects, the Service and the Deployment select by. */}}
{{- define "gateway.selector" -}}
{{- $name := include "gateway.name" . -}}
{{ merge (dict) .Values.labels (dict "app" $name "istio" (trimPrefix "istio-" $name)) | toYaml }}
{{- end }}

{{- define "gateway.labels" -}}
{{ include "gateway.selector" . }}
app.kubernetes.io/name: {{ include "gateway.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ferromesh
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}
