{{/* Labels of every object. */}}
{{- define "ferromesh.labels" -}}
app: ferromesh
app.kubernetes.io/name: ferromesh
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ferromesh
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
istio.io/rev: {{ .Values.revision }}
{{- end }}

{{/* Labels that select the control plane's pods; fixed, since a Deployment's selector cannot be changed. */}}
{{- define "ferromesh.selector" -}}
app: ferromesh
app.kubernetes.io/name: ferromesh
{{- end }}

{{/* An image's whole name, from the last part of it. */}}
{{- define "ferromesh.image" -}}
{{- $values := (index . 0).Values.image -}}
{{- with $values.registry }}{{ trimSuffix "/" . }}/{{ end }}ferromesh/{{ index . 1 }}:{{ $values.tag | default (index . 0).Chart.AppVersion }}
{{- end }}

{{/* What pods of the restricted security standard say. */}}
{{- define "ferromesh.podSecurity" -}}
runAsNonRoot: true
runAsUser: 1337
runAsGroup: 1337
fsGroup: 1337
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{/* What containers of the restricted security standard say, and that they write to volumes only. */}}
{{- define "ferromesh.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}
