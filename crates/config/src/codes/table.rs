//! The table. Numbers below 20 are about sources, below 50 about fields, below 60 about merging, the rest about rules
//! and relations.

use rajut_types::Code;

use super::Entry;

codes! {
    1 TOO_LARGE "source too large":
        "A source (a file or standard input) may have 10 MiB. Larger ones are hardly configuration; if yours is, split it."
    2 NOT_TEXT "not text":
        "The source is not UTF-8 text, or holds zero bytes. Save it as UTF-8, or leave it out of the folder."
    3 SYNTAX "not YAML":
        "The document can't be read as YAML 1.2 (of which JSON is a part). The place is where reading stopped; the cause is often the line above: indentation, a missing quote, a tab. Other documents of the same file are read."
        wrong "apiVersion: v1\nkind: Namespace\nmetadata: {name: clinic\n"
        right "apiVersion: v1\nkind: Namespace\nmetadata: {name: clinic}\n"
    4 DUPLICATE_KEY "key written twice":
        "A mapping holds the same key twice (or a field in both its spellings, `maxConnections` and `max_connections`). Other tools take the last one in silence; here neither is guessed."
        wrong "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: clinic\n  name: hospital\n"
        right "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: clinic\n"
    5 LIMIT "nested too deep or grown too large":
        "A document may be nested 100 levels deep, and its aliases (`*name`) may add 100 000 values. Beyond that it is more likely an attack or a mistake than configuration."
    6 HELM_TEMPLATE "Helm template":
        "The document is a template, not configuration: it must be rendered first. It is counted as not ours.\n\n    helm template CHART | rajut analyze -"
        wrong "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {{ .Values.namespace }}\n"
        right "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: clinic\n"
    7 KUSTOMIZE "Kustomize is not applied":
        "The folder is an input of Kustomize that changes other files (patches, name prefixes, generators). Its resources are read as they stand; patches are counted as not ours. To see what will be deployed:\n\n    kustomize build DIR | rajut analyze -"
        wrong "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nnamePrefix: prod-\nresources: [service.yaml]\n"
        right "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [service.yaml]\n"
    8 NOT_AN_OBJECT "not an object":
        "Objects have `apiVersion`, `kind` and `metadata`; Compose files have `services`. The document has neither, or only a half."
        wrong "kind: VirtualService\nmetadata: {name: web}\nspec: {hosts: [web]}\n"
        right "apiVersion: v1\nkind: Namespace\nmetadata: {name: clinic}\n"
    9 MORE_FINDINGS "more findings than are shown":
        "At most 200 findings of one source are shown. Fix those first; the rest may vanish with them."
    10 KIND_NOT_SUPPORTED "kind not supported yet":
        "The kind is known but not read yet. It is an error where ignoring it would let something through that was meant to be refused (filters), else a warning."
        wrong "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nmetadata: {name: filter}\nspec: {}\n"
        right "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n"
    11 UNKNOWN_KIND "no such kind or version":
        "The group is the mesh's own, but it has no such kind, or not in that version. Letters' case counts."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualServices\nmetadata: {name: web}\nspec: {hosts: [web]}\n"
        right "apiVersion: security.istio.io/v1beta1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n"

    20 UNKNOWN_FIELD "no such field":
        "The object has a field that its kind does not have. The API server drops such fields in silence; here the object is not used until it is clear what was meant."
        wrong "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtsl: {mode: STRICT}}\n"
        right "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n"
    21 WRONG_TYPE "wrong type":
        "The value is of another type than the field: text instead of a number, a list instead of a mapping. Numbers and booleans that are meant as text need quotes."
        wrong "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata:\n  PORT: 8080\n"
        right "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata:\n  PORT: \"8080\"\n"
    22 MISSING_FIELD "something is missing":
        "A field that the kind needs is absent or empty."
        wrong "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}}\n"
        right "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata: {}\n"
    23 UNKNOWN_VALUE "not one of the known values":
        "The field takes one of a few values, in the letters' case shown."
        wrong "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: strict}}\n"
        right "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default}\nspec: {mtls: {mode: STRICT}}\n"
    24 OUT_OF_RANGE "out of range":
        "The number is too small or too large for its field."
        wrong "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports: [{name: http, port: 80808}]\n"
        right "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec:\n  ports: [{name: http, port: 8080}]\n"
    25 BAD_DURATION "not a duration":
        "Durations are numbers with units, as Go writes them: `500ms`, `1.5s`, `2m`, `1h30m`. Most must be at least 1 ms: to have no bound, leave the field out."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - timeout: 0s\n    route: [{destination: {host: web}}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - timeout: 5s\n    route: [{destination: {host: web}}]\n"
    26 BAD_HOSTNAME "not a host name":
        "Host names consist of letters, digits, `-` and `.`; a wildcard may stand only at the left end. Schemes, ports and paths have fields of their own."
        wrong "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: \"http://web:8080\"}\n"
        right "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: web}\n"
    27 BAD_REGEX "regular expression does not compile":
        "Regular expressions follow RE2: no look-around and no back-references, and the whole text must match."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - match: [{uri: {regex: \"/(a\"}}]\n    route: [{destination: {host: web}}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - match: [{uri: {regex: \"/(a|b)\"}}]\n    route: [{destination: {host: web}}]\n"
    28 EXCLUSIVE "fields that exclude each other":
        "Two fields stand together of which only one may, or which contradict each other."
        wrong "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy:\n    tls: {mode: ISTIO_MUTUAL, caCertificates: /etc/ca.pem}\n"
        right "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy:\n    tls: {mode: ISTIO_MUTUAL}\n"
    29 NOT_SUPPORTED "not supported yet":
        "The field is one of the kind's own, but is not followed yet. It is a warning where only a feature is lost, an error where something would be left unprotected."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - match: [{statPrefix: web}]\n    route: [{destination: {host: web}}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - route: [{destination: {host: web}}]\n"
    30 DEPRECATED "deprecated":
        "The field or value still works; a newer one says the same."
        wrong "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy: {loadBalancer: {simple: LEAST_CONN}}\n"
        right "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy: {loadBalancer: {simple: LEAST_REQUEST}}\n"
    31 NO_EFFECT "no effect":
        "What is written here changes nothing, because of something else in the object."
        wrong "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy: {}\n"
        right "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n"
    32 YAML_11 "text here, something else for other tools":
        "Rajut reads YAML 1.2, in which `yes`, `on`, `0755`, `1_000` and `12:30` are text. kubectl follows YAML 1.1, in which they are booleans and numbers. Quotes make all tools agree."
        wrong "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata:\n  DEBUG: yes\n"
        right "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata:\n  DEBUG: \"yes\"\n"
    33 BAD_NAME "not a name":
        "Names of objects, labels and variables follow Kubernetes' rules: lower-case letters, digits and `-`, with a letter or digit at both ends."
        wrong "apiVersion: v1\nkind: Namespace\nmetadata: {name: Clinic_A}\n"
        right "apiVersion: v1\nkind: Namespace\nmetadata: {name: clinic-a}\n"
    34 DUPLICATE_NAME "listed twice":
        "Two entries of a list have the same name or number, so that one could not be told from the other."
        wrong "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  subsets:\n  - {name: v1, labels: {version: v1}}\n  - {name: v1, labels: {version: v2}}\n"
        right "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  subsets:\n  - {name: v1, labels: {version: v1}}\n  - {name: v2, labels: {version: v2}}\n"
    35 BAD_HEADER "not a header":
        "A header's name consists of letters, digits and a few signs; its value has no line breaks; `%` begins a variable and is doubled to stand for itself."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - headers: {request: {set: {\"x team\": clinic}}}\n    route: [{destination: {host: web}}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - headers: {request: {set: {x-team: clinic}}}\n    route: [{destination: {host: web}}]\n"
    36 INSECURE "weakens protection":
        "The setting is followed, but gives up a protection that the mesh would give."
        wrong "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy: {tls: {mode: SIMPLE, insecureSkipVerify: true}}\n"
        right "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /etc/ca.pem}}\n"
    37 BAD_PATTERN "pattern that can't match what is meant":
        "A value of an AuthorizationPolicy may have one `*`, at its beginning or at its end; paths may be templates, whose segments are texts, `{*}` or, at the end, `{**}`. Principals are written without `spiffe://`."
        wrong "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: web}\nspec:\n  rules: [{to: [{operation: {paths: [\"*/notes/*\"]}}]}]\n"
        right "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: web}\nspec:\n  rules: [{to: [{operation: {paths: [\"/cases/{*}/notes/{**}\"]}}]}]\n"

    38 BAD_KEYS "no keys that could verify a token":
        "A JSON Web Key Set holds public keys: RSA of 2048 bits or more, the curves P-256, P-384 and P-521, or Ed25519. Others in it are left out; a set of which none is left verifies no token. Shared secrets (`oct`, for HS256 and the like) are never used: whoever can verify with one can sign."
        wrong "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: tokens}\nspec:\n  jwtRules:\n  - issuer: https://login.example.com\n    jwks: '{\"keys\": [{\"kty\": \"oct\", \"k\": \"c2VjcmV0\"}]}'\n"
        right "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: tokens}\nspec:\n  jwtRules:\n  - issuer: https://login.example.com\n    jwks: '{\"keys\": [{\"kty\": \"OKP\", \"crv\": \"Ed25519\", \"x\": \"wcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcE\"}]}'\n"
    39 BAD_URL "not a URL":
        "Keys are fetched over HTTP by the control plane: the URL has `https://` or `http://`, a host, and neither a user nor a fragment."
        wrong "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: tokens}\nspec:\n  jwtRules:\n  - {issuer: https://login.example.com, jwksUri: login.example.com/keys}\n"
        right "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: tokens}\nspec:\n  jwtRules:\n  - {issuer: https://login.example.com, jwksUri: \"https://login.example.com/keys\"}\n"

    50 DUPLICATE_OBJECT "object written twice":
        "Two documents describe an object of the same kind, namespace and name, and differ. The first that is read is used. Two equal documents are a warning; of namespaces, service accounts and config maps not even that."
        wrong "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 81}]}\n"
        right "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web-next}\nspec: {ports: [{name: http, port: 81}]}\n"
    51 SECRET "secret not there":
        "A variable of the environment comes from a Secret that is not among what was read. Secrets are seldom kept with the other files: what the application needs can be set in a LocalWorkload's `env`."
        wrong "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      - name: web\n        env: [{name: KEY, valueFrom: {secretKeyRef: {name: keys, key: key}}}]\n"
        right "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      - name: web\n        env: [{name: KEY, value: \"1\"}]\n"
    52 ENV_NOT_SET "variable not set":
        "A variable of the environment refers to something that is not there: a config map, a key in it, or a field that only a cluster knows."
        wrong "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      - name: web\n        envFrom: [{configMapRef: {name: app}}]\n"
        right "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      - name: web\n        envFrom: [{configMapRef: {name: app, optional: true}}]\n"
    53 NO_DEPLOYMENT "refers to a deployment that is not there":
        "A LocalWorkload, `--run` or `depends_on` names a workload that no Deployment, StatefulSet, Compose service or LocalWorkload of that namespace defines."
        wrong "apiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: signer}\nspec:\n  deploymentRef: {name: signer}\n  run: node signer.js\n"
        right "apiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: signer}\nspec:\n  run: node signer.js\n"
    54 COMPOSE "part of a Compose file that is not followed":
        "Rajut reads from Compose files what a mesh and a local run need: names, ports, environment, dependencies, health checks. What else changes how a service runs is named here."
        wrong "services:\n  web:\n    expose: [\"8080\"]\n    env_file: .env\n"
        right "services:\n  web:\n    expose: [\"8080\"]\n    environment: {DEBUG: \"1\"}\n"
    55 COMPOSE_PORT "Compose service without a known port":
        "In Compose any port of a service can be reached by its name; a mesh must know which. A port is taken from `ports` and `expose`, an address in another service's environment, a widely used image, or the health check; else add `expose`."
        wrong "services:\n  web:\n    image: web\n"
        right "services:\n  web:\n    image: web\n    expose: [\"8080\"]\n"

    60 WEIGHTS "no destination has a weight":
        "Among several destinations the weights are relative; their sum need not be 100, and a missing weight is 0. If all are 0, no request could go anywhere."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - route:\n    - {destination: {host: web}, weight: 0}\n    - {destination: {host: web-next}, weight: 0}\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - route:\n    - {destination: {host: web}, weight: 9}\n    - {destination: {host: web-next}, weight: 1}\n"
    61 ROUTE_ACTION "route without a destination":
        "Each HTTP route does one of four things: `route`, `redirect`, `directResponse`, `delegate`."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - match: [{uri: {prefix: /a}}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - match: [{uri: {prefix: /a}}]\n    route: [{destination: {host: web}}]\n"
    62 DELEGATE "delegation that can't work":
        "A VirtualService with hosts may hand a route to one without hosts. That one has only `http` routes, no gateways, and can't delegate further; its matches must lie within those of the route that it stands for."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http: [{delegate: {name: parts}}]\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: parts}\nspec:\n  http: [{delegate: {name: deeper}}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http: [{delegate: {name: parts}}]\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: parts}\nspec:\n  http: [{route: [{destination: {host: web}}]}]\n"
    63 CONSECUTIVE_ERRORS "`consecutiveErrors`":
        "Up to Istio 1.6 `consecutiveErrors: N` ejected an endpoint after N answers 502, 503 or 504 (or failed connections) in a row; since 1.7 it has no effect there. It is read as what it meant: `consecutiveGatewayErrors: N` with `consecutive5xxErrors: 0`. Newer fields beside it win."
        wrong "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy: {outlierDetection: {consecutiveErrors: 5}}\n"
        right "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy: {outlierDetection: {consecutiveGatewayErrors: 5, consecutive5xxErrors: 0}}\n"
    64 HOST_WILDCARD "the host `*` inside the mesh":
        "A rule for all hosts can be bound to gateways only: inside the mesh it would take over every service."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [\"*\"]\n  http: [{route: [{destination: {host: web}}]}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http: [{route: [{destination: {host: web}}]}]\n"
    65 SNI_OUTSIDE "server name outside the rule's hosts":
        "The `sniHosts` of a TLS route must be among the hosts of the VirtualService."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  tls: [{match: [{sniHosts: [other.example.com]}], route: [{destination: {host: web}}]}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web.example.com]\n  tls: [{match: [{sniHosts: [web.example.com]}], route: [{destination: {host: web}}]}]\n"
    66 PORT_MTLS "mTLS by port without a selector":
        "`portLevelMtls` is about ports of workloads, so the policy must select workloads. The numbers are those that the workload listens on, not the service's."
        wrong "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: web}\nspec:\n  portLevelMtls: {8080: {mode: DISABLE}}\n"
        right "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: web}\nspec:\n  selector: {matchLabels: {app: web}}\n  portLevelMtls: {8080: {mode: DISABLE}}\n"
    67 PORT_PROTOCOL "port name declares no protocol":
        "A port's protocol is what stands before the first `-` of its name: `http`, `http-web`, `grpc-api`. `httpfoo` and `web-http` declare nothing: the protocol is then detected from the first bytes, which costs a wait for servers that speak first and forbids what needs a declared protocol."
        wrong "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: httpweb, port: 80}]}\n"
        right "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http-web, port: 80}]}\n"

    70 HOST_NOT_FOUND "host does not exist":
        "A rule names a host that no Service, ServiceEntry or Compose service defines. A short name means the rule's own namespace, never that of the caller; for another namespace write `name.namespace.svc.cluster.local`."
        wrong "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: wep}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n"
        right "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: web}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n"
    71 SUBSET_NOT_DEFINED "subset is not defined":
        "A route sends to a subset that no DestinationRule of the host defines. Requests to it are answered 503."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http: [{route: [{destination: {host: web, subset: v1}}]}]\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http: [{route: [{destination: {host: web, subset: v1}}]}]\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: web, subsets: [{name: v1, labels: {version: v1}}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n"
    72 SUBSET_EMPTY "subset selects nothing":
        "No workload of the service has the subset's labels. Requests to it are answered 503."
        wrong "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: web, subsets: [{name: v2, labels: {version: v2}}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80}]}\n---\napiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: web}\nspec: {labels: {app: web, version: v1}, sample: {}}\n"
        right "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec: {host: web, subsets: [{name: v1, labels: {version: v1}}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80}]}\n---\napiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: web}\nspec: {labels: {app: web, version: v1}, sample: {}}\n"
    73 SELECTOR_EMPTY "selector selects nothing":
        "No workload of the namespace has the labels that the selector asks for."
        wrong "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: wep}, ports: [{name: http, port: 80}]}\n---\napiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: web}\nspec: {labels: {app: web}, sample: {}}\n"
        right "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{name: http, port: 80}]}\n---\napiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: web}\nspec: {labels: {app: web}, sample: {}}\n"
    74 PORT_NOT_FOUND "no such port":
        "A rule, a probe or a target port names a port that its service or workload does not have."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http: [{route: [{destination: {host: web, port: {number: 8080}}}]}]\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http: [{route: [{destination: {host: web, port: {number: 80}}}]}]\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n"
    75 H2_UNDECLARED "HTTP/2 upgrade on a port without a declared protocol":
        "`h2UpgradePolicy: UPGRADE` on a port whose protocol is detected also makes the far proxy speak HTTP/2 to the application, which may know HTTP/1.1 only. On a port named `http…` the far proxy turns it back."
        wrong "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: web, port: 8080}]}\n"
        right "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\nspec:\n  host: web\n  trafficPolicy: {connectionPool: {http: {h2UpgradePolicy: UPGRADE}}}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http-web, port: 8080}]}\n"
    76 UNREACHABLE "route is never reached":
        "Routes are tried in the order written and the first match wins. A route before this one takes every request that this one would."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - route: [{destination: {host: web}}]\n  - match: [{uri: {prefix: /a}}]\n    route: [{destination: {host: web}}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web]\n  http:\n  - match: [{uri: {prefix: /a}}]\n    route: [{destination: {host: web}}]\n  - route: [{destination: {host: web}}]\n"
    77 HOST_TWICE "several rules for one host":
        "Inside the mesh only one VirtualService per host is used: the oldest, then the first by name. Of several DestinationRules for one host the subsets are put together, but only the first traffic policy counts."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [web]\n  http: [{route: [{destination: {host: web}}]}]\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: b}\nspec:\n  hosts: [web]\n  http: [{route: [{destination: {host: web}}]}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [web]\n  http: [{route: [{destination: {host: web}}]}]\n"
    78 POLICY_IGNORED "policy that is not used":
        "Of several PeerAuthentications without a selector in one namespace only the oldest counts; a selector in the root namespace is not used by sidecars. So it is with several PeerAuthentications, Sidecars or Telemetries that select one workload."
        wrong "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec: {mtls: {mode: STRICT}}\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: b}\nspec: {mtls: {mode: PERMISSIVE}}\n"
        right "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: a}\nspec: {mtls: {mode: STRICT}}\n"
    79 NO_RUN_COMMAND "not told what to run":
        "The files say what the workload is, but not what to start on this machine. It is listed as not started; add the line shown, or a LocalWorkload."
        wrong "apiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: signer}\nspec: {labels: {app: signer}}\n"
        right "apiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: signer}\nspec: {labels: {app: signer}, run: node signer.js}\n"

    84 GATEWAY_SELECTOR "gateway that selects nothing, or everything":
        "A Gateway is served by the workloads whose labels its selector names, in any namespace. `istio: ingressgateway` and `istio: egressgateway` select the gateways that Istio's installation brings, which `rajut up` starts, too."
        wrong "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: web}\nspec:\n  selector: {istio: ingresgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: web}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]\n"
    85 GATEWAY_NOT_FOUND "no such gateway":
        "A VirtualService names a Gateway that is not there: nothing is routed by it. A name without a namespace means the VirtualService's own; a Gateway elsewhere is `namespace/name`."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web.example.com]\n  gateways: [edge]\n  http: [{directResponse: {status: 200}}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web.example.com]\n  gateways: [edge]\n  http: [{directResponse: {status: 200}}]\n---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]\n"
    86 GATEWAY_HOST "host that the gateway does not serve":
        "A gateway serves those hosts of a VirtualService that one of its servers names, for namespaces that the server lets in (`namespace/host`, `./host`). Of a wildcard and a name within it the narrower is served. A host is a full name; clients outside the mesh know no short ones."
        wrong "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web.example.org]\n  gateways: [edge]\n  http: [{directResponse: {status: 200}}]\n---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*.example.com\"]}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: web}\nspec:\n  hosts: [web.example.com]\n  gateways: [edge]\n  http: [{directResponse: {status: 200}}]\n---\napiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*.example.com\"]}]\n"
    87 GATEWAY_TLS "TLS of a gateway's server":
        "A server with the protocol HTTPS or TLS says what is done with TLS (`mode`) and, where it is ended, with which certificate. An HTTP server can only send its clients to HTTPS (`httpsRedirect`). `tls` without a mode is PASSTHROUGH."
        wrong "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [\"*\"]}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [\"*\"], tls: {mode: PASSTHROUGH}}]\n"
    88 GATEWAY_PORT "port of a gateway":
        "A port of a gateway speaks one of HTTP, HTTPS, HTTP2, GRPC, TLS and TCP. Servers that share a port share what it speaks: with TLS or without, and are told apart by their hosts; of two that claim the same host the older gateway's is used."
        wrong "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTQ}, hosts: [\"*\"]}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [\"*\"]}]\n"
    89 CREDENTIAL "certificate that is not there":
        "`credentialName` names a Secret of the gateway workload's namespace (that of Istio's own gateways is `istio-system`), with `tls.crt` and `tls.key` (or `cert` and `key`), PEM. For MUTUAL it, or a second one called `<name>-cacert`, holds the clients' issuer as `ca.crt` (or `cacert`). Without it the server's connections are closed."
        wrong "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [\"*\"], tls: {mode: SIMPLE, credentialName: edge}}]\n"
        right "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: edge}\nspec:\n  selector: {istio: ingressgateway}\n  servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [\"*\"], tls: {mode: SIMPLE, credentialName: edge}}]\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: edge, namespace: istio-system}\nstringData:\n  tls.crt: \"-----BEGIN CERTIFICATE-----\\n…\"\n  tls.key: \"-----BEGIN PRIVATE KEY-----\\n…\"\n"
    90 AUTHORIZER "policy whose provider can't be asked":
        "An AuthorizationPolicy of the action CUSTOM names one of `extensionProviders` of the mesh's configuration, one with `envoyExtAuthzHttp` or `envoyExtAuthzGrpc`, and all such policies of a workload name the same. Otherwise the calls that the policy is about are refused, as in Istio."
        wrong "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ask}\nspec: {action: CUSTOM, provider: {name: gaurd}, rules: [{}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: guard}\nspec: {ports: [{name: grpc, port: 9000}]}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    extensionProviders:\n    - name: guard\n      envoyExtAuthzGrpc: {service: guard.default.svc.cluster.local, port: 9000}\n"
        right "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: ask}\nspec: {action: CUSTOM, provider: {name: guard}, rules: [{}]}\n---\napiVersion: v1\nkind: Service\nmetadata: {name: guard}\nspec: {ports: [{name: grpc, port: 9000}]}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    extensionProviders:\n    - name: guard\n      envoyExtAuthzGrpc: {service: guard.default.svc.cluster.local, port: 9000}\n"

    91 CALLER_NOT_FOUND "caller that is not there":
        "The policy names an identity `TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`, a service account or a namespace that no workload of these files has, though its neighbours are there. An ALLOW policy then lets that caller not through, and a DENY policy does not stop it."
        wrong "apiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: signer}\nspec: {labels: {app: signer}, serviceAccount: signer, run: node signer.js}\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: files}\nspec:\n  rules:\n  - from: [{source: {principals: [cluster.local/ns/default/sa/singer]}}]\n"
        right "apiVersion: mesh.rajut.dev/v1alpha1\nkind: LocalWorkload\nmetadata: {name: signer}\nspec: {labels: {app: signer}, serviceAccount: signer, run: node signer.js}\n---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: files}\nspec:\n  rules:\n  - from: [{source: {principals: [cluster.local/ns/default/sa/signer]}}]\n"

    501 LISTENER_CLASH "two services need the same listener":
        "Connections are told apart by the address and port that was dialled. Two services that share both, or that have no address and share the port, can be told apart only by what their connections say: the host of HTTP requests, the server name of TLS. Opaque protocols say nothing. Give one of them an address (`spec.addresses`, or a Service with a cluster IP), or declare the port's protocol."
    502 EXPLICIT_PORT_UNKNOWN "a local port stands for a service that the proxy can't see":
        "In the explicit mode each service port has a local address. The service was deleted, its port changed, or its `exportTo` hides it from this workload's namespace. The local port does not listen until the service is back."
    503 NOT_ON_THIS_PROXY "a setting has no meaning for this kind of proxy":
        "The setting was left out of this proxy's configuration; other proxies use it. Proxyless gRPC clients, for instance, have no redirections, and only our own data plane and Envoy take header operations."

    601 PLAIN_PORT "port that takes plain text":
        "Under mTLS mode PERMISSIVE, the default, and DISABLE a port takes callers without a certificate: what they send can be read on its way, and nobody knows who they are. `rajut top` and `rajut scan` show who calls so; once nobody does, set STRICT. Said by `rajut scan`."
    602 UNGUARDED "workload that everybody may call":
        "No AuthorizationPolicy of action ALLOW holds for the workload, so whoever reaches it is let through. `rajut policy suggest` writes policies from what was seen; with default deny nobody is let through whom no policy names. Said by `rajut scan`."
    603 OPEN_RULE "rule that lets every caller through":
        "A rule of action ALLOW asks for nothing that tells callers apart: no identity, no address, no header, no token. Where everybody is meant (health checks, say), leave it. Said by `rajut scan`."
    604 SHARED_IDENTITY "identity that unlike workloads share":
        "Workloads of one service account have one identity: who may do one's work may do the other's, and a policy cannot tell them apart. Give each a service account of its own. Said by `rajut scan`."
    605 PLAIN_EGRESS "calls that leave the mesh without TLS":
        "A ServiceEntry outside the mesh has a port that is neither declared as TLS nor made TLS by a DestinationRule, so that calls can be read and changed on their way. Said by `rajut scan`."
}
