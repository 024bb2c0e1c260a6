{{/* Labels of every object. */}}
{{- define "ferromesh.labels" -}}
app: ferromesh
app.kubernetes.io/name: ferromesh
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: ferromesh
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
istio.io/rev: {{ .Values.revision | quote }}
{{- end }}

{{/* A map whose values are all texts, as JSON: annotations and labels take nothing else. Later maps of the list win. */}}
{{- define "ferromesh.texts" -}}
{{- $texts := dict -}}
{{- range $map := . -}}
{{- range $key, $value := $map -}}
{{- $whole := and (kindIs "float64" $value) (eq (floor $value) $value) -}}
{{- $_ := set $texts $key (toString (ternary (int64 (ternary $value 0 $whole)) $value $whole)) -}}
{{- end -}}
{{- end -}}
{{- toJson $texts -}}
{{- end }}

{{/* One list of lists of objects with names, as JSON: of two with one name the last stays, where the first stood. Helm merges
such lists by name, and an upgrade that meets a name twice loses it. */}}
{{- define "ferromesh.named" -}}
{{- $last := dict -}}
{{- range $list := . -}}
{{- range $item := $list -}}
{{- $_ := set $last $item.name $item -}}
{{- end -}}
{{- end -}}
{{- $all := list -}}
{{- $seen := dict -}}
{{- range $list := . -}}
{{- range $item := $list -}}
{{- if not (hasKey $seen $item.name) -}}
{{- $_ := set $seen $item.name true -}}
{{- $all = append $all (get $last $item.name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $all -}}
{{- end }}

{{/* Variables from a map, NAME: text, as a JSON list. */}}
{{- define "ferromesh.variables" -}}
{{- $variables := list -}}
{{- range $name, $text := include "ferromesh.texts" (list .) | fromJson -}}
{{- $variables = append $variables (dict "name" $name "value" $text) -}}
{{- end -}}
{{- toJson $variables -}}
{{- end }}

{{/* Labels that select the control plane's pods; fixed, since a Deployment's selector cannot be changed. */}}
{{- define "ferromesh.selector" -}}
app: ferromesh
app.kubernetes.io/name: ferromesh
{{- end }}

{{/* Labels of the control plane's pods, as JSON: the user's stand in the place of the chart's, but for those by which pods are
selected, and kept out of injection: it starts without help of its own webhook. */}}
{{- define "ferromesh.podLabels" -}}
{{- $fixed := merge (dict "sidecar.istio.io/inject" "false") (include "ferromesh.selector" . | fromYaml) -}}
{{- range $key := keys (default dict .Values.podLabels) | sortAlpha -}}
{{- if hasKey $fixed $key -}}
{{- fail (printf "podLabels: %s is the chart's own (%s) and cannot be replaced" $key (get $fixed $key)) -}}
{{- end -}}
{{- end -}}
{{- include "ferromesh.texts" (list (include "ferromesh.labels" . | fromYaml) .Values.podLabels $fixed) -}}
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

{{/* The control plane's own variables. */}}
{{- define "ferromesh.ownVariables" -}}
- {name: FERROMESH_POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: FERROMESH_ROOT_NAMESPACE, value: {{ .Release.Namespace | quote }}}
- {name: FERROMESH_TRUST_DOMAIN, value: {{ .Values.trustDomain | quote }}}
- {name: FERROMESH_LEAF_TTL, value: {{ .Values.leafTtl | quote }}}
{{- if .Values.takeOverRoots }}
- {name: FERROMESH_TAKE_OVER_ROOTS, value: "true"}
{{- end }}
- {name: FERROMESH_DATA_DIR, value: /var/lib/ferromesh}
- {name: FERROMESH_INJECTION_SETTINGS, value: /etc/ferromesh/injection/settings.yaml}
- {name: FERROMESH_ADMIN_TOKEN_FILE, value: /etc/ferromesh/administrator/token}
# For `kubectl exec`: the commands of the image find the token of its own REST API.
- {name: FERROMESH_TOKEN_FILE, value: /etc/ferromesh/administrator/token}
- {name: FERROMESH_XDS_TLS_ADDRESS, value: "0.0.0.0:15012"}
- {name: FERROMESH_WEBHOOK_ADDRESS, value: "0.0.0.0:15017"}
- {name: FERROMESH_METRICS_ADDRESS, value: "0.0.0.0:15014"}
- {name: FERROMESH_HTTP_ADDRESS, value: "0.0.0.0:8080"}
- {name: FERROMESH_SERVER_NAMES, value: "ferromesh.{{ .Release.Namespace }}.svc,ferromesh.{{ .Release.Namespace }}"}
- {name: RUST_LOG, value: {{ printf "%s,kube_client=off,kube_runtime=off" .Values.logLevel | quote }}}
{{- end }}

{{/* The control plane's own volumes. */}}
{{- define "ferromesh.ownVolumes" -}}
# Nothing in it has to outlive the pod: the authority's keys are in the Secret ferromesh-ca, objects with the API server.
- {name: data, emptyDir: {}}
- {name: injection, configMap: {name: ferromesh-injection}}
- {name: administrator, secret: {secretName: ferromesh-administrator, defaultMode: 0440}}
{{- end }}

{{/* Names of Secrets that images are pulled with, as JSON. */}}
{{- define "ferromesh.pullSecrets" -}}
{{- concat .Values.image.pullSecrets (default list (.Values.global).imagePullSecrets) | uniq | toJson -}}
{{- end }}
