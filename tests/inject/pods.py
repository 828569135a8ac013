"""Pods as the API server sends them for admission, and the configuration that the tests inject by."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

type Json = dict[str, Any]

UID = "705ab4f5-6393-11e8-b7cc-42010a800002"

CONFIG = """
configMap: company-bundle
certFile: ca-certificates.crt
excludeContainers: [istio-proxy]
excludeNamespaces: [untrusting]
policies:
  - {name: agents, configMap: egress-policy-agents}
  - {name: strict, configMap: egress-policy-strict, key: strict.yaml}
namespaces:
  - {match: ["agents-*"], policies: [agents, strict], enforce: true}
  - {match: [old], policies: [agents], form: classic, enforce: true}
  - {match: [confined], policies: [agents], profile: restricted, enforce: true}
  - {match: [vaulted], policies: [agents], caSecret: egress-ca, enforce: true}
  - {match: [asking], policies: [agents], inject: onRequest}
sidecar:
  image: registry.example/egress-sidecar:1
  expectAllowed: ["api.github.com:443"]
"""


def container(name: str = "app", **more: Any) -> Json:
    return {"name": name, "image": "registry.example/app:1", **more}


def pod(*containers: Json, owner: str | None = None, annotations: Json | None = None, **spec: Any) -> Json:
    metadata: Json = {"name": "app"}
    if owner:
        version = "batch/v1" if owner == "Job" else "apps/v1"
        reference = {"apiVersion": version, "kind": owner, "name": "app", "uid": "0a1b", "controller": True}
        metadata = {"generateName": "app-", "ownerReferences": [reference]}
    if annotations:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": list(containers) or [container()], **spec},
    }


def lestak(**keys: str) -> Json:
    return {f"cainjector.lestak.sh/{key}": value for key, value in keys.items()}


def ours(**keys: str) -> Json:
    return {f"egress-sidecar/{key}": value for key, value in keys.items()}


@dataclass(frozen=True, slots=True)
class Case:
    """A pod that is created in a namespace, and what becomes of it: none, trust, sidecar or refused."""

    id: str
    namespace: str
    pod: Json
    becomes: str
    guard: str = ""  # what the guard says of it; empty: admitted


_CONTEXT = {"runAsUser": 1000, "runAsNonRoot": True}
_ISTIO = container("istio-proxy", securityContext={"runAsUser": 1337})
_SHARED = {"name": "shared", "emptyDir": {}}

CASES = [
    Case("a plain pod", "agents-1", pod(), "sidecar"),
    Case("a Deployment's pod", "agents-1", pod(owner="ReplicaSet"), "sidecar"),
    Case("a StatefulSet's pod", "agents-1", pod(owner="StatefulSet"), "sidecar"),
    Case("a DaemonSet's pod", "agents-1", pod(owner="DaemonSet"), "sidecar"),
    Case("a Job's pod", "agents-1", pod(owner="Job", restartPolicy="Never"), "sidecar"),
    Case("init containers of its own", "agents-1", pod(initContainers=[container("migrate")]), "sidecar"),
    Case(
        "a native sidecar of its own",
        "agents-1",
        pod(initContainers=[container("logs", restartPolicy="Always"), container("migrate")]),
        "sidecar",
    ),
    Case("two containers", "agents-1", pod(container(), container("helper")), "sidecar"),
    Case("another webhook's container", "agents-1", pod(container(), _ISTIO), "sidecar"),
    Case(
        "volumes and mounts of its own",
        "agents-1",
        pod(container(volumeMounts=[{"name": "shared", "mountPath": "/data"}]), volumes=[_SHARED]),
        "sidecar",
    ),
    Case(
        "variables of its own",
        "agents-1",
        pod(container(env=[{"name": "SSL_CERT_FILE", "value": "/own.pem"}, {"name": "A", "value": "b"}])),
        "sidecar",
    ),
    Case(
        "its own system bundle",
        "agents-1",
        pod(
            container(volumeMounts=[{"name": "shared", "mountPath": "/etc/ssl/certs"}]),
            volumes=[_SHARED],
        ),
        "sidecar",
    ),
    Case("null lists", "agents-1", pod(container(env=None, volumeMounts=None), volumes=None), "sidecar"),
    Case("restricted already", "agents-1", pod(container(securityContext={
        "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, **_CONTEXT})), "sidecar"),
    Case("a harmless capability", "agents-1", pod(container(securityContext={
        "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}})), "sidecar"),
    Case("the second policy by annotation", "agents-1", pod(annotations=ours(policy="strict")), "sidecar"),
    Case("a policy that isn't offered", "agents-1", pod(annotations=ours(policy="anything")), "refused"),
    Case("opting out where that isn't offered", "agents-1", pod(annotations=ours(inject="false")), "sidecar"),
    Case(
        "opting out as with cainjector where that isn't offered", "agents-1", pod(annotations=lestak(inject="false")),
        "sidecar",
    ),
    Case("another system's bundle path", "agents-1", pod(annotations=ours(systemBundles="rhel")), "sidecar"),
    Case("no system bundle", "agents-1", pod(annotations=ours(systemBundles="none")), "sidecar"),
    Case("a system bundle that is no path", "agents-1", pod(annotations=ours(systemBundles="etc/x")), "refused"),
    Case("an excluded container", "agents-1", pod(annotations=ours(excludeContainers="app")), "sidecar"),
    Case(
        "an annotation that pretends to be injected", "agents-1", pod(annotations=ours(injected="true", status="done")),
        "sidecar",
    ),
    Case(
        "a container that pretends to be the sidecar", "agents-1",
        pod(initContainers=[container("egress-sidecar", restartPolicy="Always")]), "sidecar",
    ),
    Case(
        "a volume that pretends to be the CA's", "agents-1",
        pod(
            container(volumeMounts=[{"name": "egress-ca", "mountPath": "/steal"}]),
            volumes=[{"name": "egress-ca", "emptyDir": {}}],
        ),
        "sidecar",
    ),
    Case("a host network", "agents-1", pod(hostNetwork=True), "refused"),
    Case("the classic form", "old", pod(), "sidecar"),
    Case("the classic form, Deployment", "old", pod(owner="ReplicaSet", initContainers=[container("i")]), "sidecar"),
    Case("the restricted profile", "confined", pod(container(securityContext=_CONTEXT)), "sidecar"),
    Case("the restricted profile, Job", "confined", pod(owner="Job", restartPolicy="OnFailure"), "sidecar"),
    Case("a CA from a Secret", "vaulted", pod(owner="ReplicaSet"), "sidecar"),
    Case("asking for the sidecar", "asking", pod(annotations=ours(inject="sidecar")), "sidecar"),
    Case("asking for it with true", "asking", pod(annotations=ours(inject="true")), "sidecar"),
    Case("not asking", "asking", pod(), "none"),
    Case("asking for trust alone", "asking", pod(annotations=ours(inject="trust")), "trust"),
    Case("asking where no policy is meant", "elsewhere", pod(annotations=ours(inject="sidecar")), "refused"),
    Case("asking for nonsense", "elsewhere", pod(annotations=ours(inject="maybe")), "refused"),
    Case("an untouched namespace", "elsewhere", pod(), "none"),
    Case("kube-system", "kube-system", pod(annotations=ours(inject="sidecar")), "none"),
    Case("cainjector's annotation", "elsewhere", pod(annotations=lestak(inject="true")), "trust"),
    Case(
        "cainjector's annotation, init containers", "elsewhere",
        pod(initContainers=[container("i")], annotations=lestak(inject="true")), "trust",
    ),
    Case("cainjector's configMap", "elsewhere", pod(annotations=lestak(inject="true", configMap="mine")), "trust"),
    Case("cainjector's secret", "elsewhere", pod(annotations=lestak(inject="true", secret="mine")), "trust"),
    Case(
        "both of cainjector's sources", "elsewhere",
        pod(annotations=lestak(inject="true", secret="mine", configMap="mine")), "refused",
    ),
    Case(
        "cainjector's paths", "elsewhere",
        pod(annotations=lestak(inject="true", mountPath="/cacerts", certFile="ca.crt")), "trust",
    ),
    Case(
        "cainjector's article", "elsewhere",
        pod(annotations=lestak(inject="true", mountPath="/cacerts", sslCertFile="/cacerts/own.pem")), "trust",
    ),
    Case(
        "cainjector without variables", "elsewhere", pod(annotations=lestak(inject="true", setEnvVar="false")), "trust",
    ),
    Case(
        "cainjector's excluded container", "elsewhere",
        pod(container(), container("b"), annotations=lestak(inject="true", excludeContainers="app, c")), "trust",
    ),
    Case(
        "cainjector's namespaces", "elsewhere",
        pod(annotations=lestak(inject="true", includeNamespaces="elsewhere,x", excludeNamespaces="y")), "trust",
    ),
    Case(
        "exclusion beats inclusion", "elsewhere",
        pod(annotations=lestak(inject="true", includeNamespaces="elsewhere", excludeNamespaces="elsewhere")), "none",
    ),
    Case("a namespace that the configuration excludes", "untrusting", pod(annotations=lestak(inject="true")), "none"),
    Case("cainjector's flag misspelt", "elsewhere", pod(annotations=lestak(inject="ture")), "refused"),
    Case("a path that is none", "elsewhere", pod(annotations=lestak(inject="true", mountPath="cacerts")), "refused"),
    Case(
        "our prefix beats cainjector's", "elsewhere",
        pod(annotations=lestak(inject="true") | ours(inject="false")), "none",
    ),
    # What Guard refuses though the sidecar is there.
    Case(
        "the sidecar's user", "agents-1", pod(container(securityContext={"runAsUser": 14137})), "sidecar",
        "runAsUser 14137",
    ),
    Case(
        "the sidecar's user for the whole pod", "agents-1", pod(securityContext={"runAsUser": 14137}), "sidecar",
        "runAsUser 14137",
    ),
    Case(
        "the sidecar's user in an init container", "agents-1",
        pod(initContainers=[container("i", securityContext={"runAsUser": 14137})]), "sidecar", "runAsUser 14137",
    ),
    Case(
        "the sidecar's user, restricted", "confined", pod(securityContext={"runAsUser": 14137}), "sidecar", "runAsUser",
    ),
    Case(
        "privilege escalation", "agents-1", pod(container(securityContext={"allowPrivilegeEscalation": True})),
        "sidecar", "allowPrivilegeEscalation",
    ),
    *(
        Case(
            f"capability {name}", "agents-1", pod(container(securityContext={"capabilities": {"add": [name]}})),
            "sidecar", "capabilities.add",
        )
        for name in (
            "SETUID", "SETGID", "NET_RAW", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE", "BPF", "SYS_MODULE", "ALL",
            "CAP_NET_ADMIN", "net_raw", "DAC_READ_SEARCH", "PERFMON", "SYS_RAWIO",
        )
    ),
    Case("privileged", "agents-1", pod(container(securityContext={"privileged": True})), "sidecar", "privileged"),
    Case(
        "privileged init container, classic", "old",
        pod(initContainers=[container("i", securityContext={"privileged": True})]), "sidecar", "privileged",
    ),
    Case("hostPID", "agents-1", pod(hostPID=True), "sidecar", "hostPID"),
    Case("a host network, restricted", "confined", pod(hostNetwork=True), "sidecar", "hostNetwork"),
    Case("shared processes", "agents-1", pod(shareProcessNamespace=True), "sidecar", "shareProcessNamespace"),
    Case(
        "the node's files", "agents-1",
        pod(volumes=[{"name": "node", "hostPath": {"path": "/var/lib/kubelet"}}]), "sidecar", "hostPath",
    ),
    *(
        Case(f"a volume that the node fetches by {kind}", "agents-1", pod(volumes=[{"name": "x", kind: source}]),
             "sidecar", f"volumes 'x': {kind}")
        for kind, source in (
            ("nfs", {"server": "nfs.example.com", "path": "/"}),
            ("iscsi", {"targetPortal": "192.0.2.1", "iqn": "iqn.2001-04.com.example:x", "lun": 0}),
            ("gitRepo", {"repository": "https://git.example.com/x"}),
            ("flexVolume", {"driver": "example.com/x"}),
        )
    ),
    *(
        Case(f"a node that connects elsewhere by {'.'.join(more)}", "agents-1", pod(container(**more)), "sidecar",
             "host: the node would connect there")
        for more in (
            {"livenessProbe": {"httpGet": {"host": "192.0.2.1", "path": "/x", "port": 80}}},
            {"readinessProbe": {"tcpSocket": {"host": "169.254.169.254", "port": 80}}},
            {"lifecycle": {"postStart": {"httpGet": {"host": "example.com", "port": 80}}}},
        )
    ),
    Case(
        "harmless volumes and probes", "agents-1",
        pod(
            container(
                livenessProbe={"httpGet": {"path": "/", "port": 80}},
                lifecycle={"preStop": {"exec": {"command": ["true"]}}},
            ),
            volumes=[
                {"name": "a", "persistentVolumeClaim": {"claimName": "a"}},
                {"name": "b", "csi": {"driver": "secrets-store.csi.k8s.io", "readOnly": True}},
                {"name": "c", "downwardAPI": {"items": []}},
                {"name": "d", "emptyDir": {}},
            ],
        ),
        "sidecar",
    ),
    Case(
        "addresses of its own choice", "agents-1",
        pod(hostAliases=[{"ip": "192.0.2.1", "hostnames": ["api.github.com"]}]), "sidecar", "hostAliases",
    ),
    Case(
        "a resolver of its own choice", "agents-1",
        pod(dnsPolicy="None", dnsConfig={"nameservers": ["192.0.2.53"]}), "sidecar", "dnsPolicy",
    ),
    Case(
        "a further resolver", "agents-1", pod(dnsConfig={"nameservers": ["192.0.2.53"]}), "sidecar", "nameservers",
    ),
    Case(
        "settings of the network", "agents-1",
        pod(securityContext={"sysctls": [{"name": "net.ipv4.ip_forward", "value": "1"}]}), "sidecar", "sysctls",
    ),
    Case(
        "unmasked proc", "agents-1", pod(container(securityContext={"procMount": "Unmasked"}), hostUsers=False),
        "sidecar", "procMount",
    ),
    Case(
        "the CA's Secret as a volume", "vaulted",
        pod(
            container(volumeMounts=[{"name": "x", "mountPath": "/x"}]),
            volumes=[{"name": "x", "secret": {"secretName": "egress-ca"}}],
        ),
        "sidecar", "holds the CA's key",
    ),
    Case(
        "the CA's Secret, projected", "vaulted",
        pod(volumes=[{"name": "x", "projected": {"sources": [{"secret": {"name": "egress-ca"}}]}}]),
        "sidecar", "holds the CA's key",
    ),
    Case(
        "the CA's Secret in a variable", "vaulted",
        pod(container(env=[{"name": "K", "valueFrom": {"secretKeyRef": {"name": "egress-ca", "key": "tls.key"}}}])),
        "sidecar", "holds the CA's key",
    ),
    Case(
        "the CA's Secret in all variables", "vaulted",
        pod(container(envFrom=[{"secretRef": {"name": "egress-ca"}}])), "sidecar", "holds the CA's key",
    ),
]  # fmt: skip


def review(namespace: str, pod: Json | None, operation: str = "CREATE", **more: Any) -> Json:
    """An AdmissionReview as the API server sends it."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    resource = {"group": "", "version": "v1", "resource": "pods"}
    request = {
        "uid": UID,
        "kind": kind,
        "resource": resource,
        "requestKind": kind,
        "requestResource": resource,
        "namespace": namespace,
        "operation": operation,
        "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
        "object": pod,
        "oldObject": None,
        "dryRun": False,
        "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        **more,
    }
    return {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}


def as_stored(pod: Json) -> Json:
    """A pod completed as the API server completes it between two webhooks: defaults, and the account's token."""
    pod = deepcopy(pod)
    token = {
        "name": "kube-api-access-x7k2p",
        "readOnly": True,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    }
    spec = pod["spec"]
    own = [volume for volume in spec.get("volumes") or [] if volume["name"] != token["name"]]
    for one in [*(spec.get("initContainers") or []), *spec["containers"]]:
        one.setdefault("terminationMessagePath", "/dev/termination-log")
        one.setdefault("terminationMessagePolicy", "File")
        one.setdefault("imagePullPolicy", "IfNotPresent")
        one.setdefault("resources", {})
        others = [mount for mount in one.get("volumeMounts") or [] if mount["name"] != token["name"]]
        one["volumeMounts"] = [*others, dict(token)]
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            for key, value in (("successThreshold", 1), ("periodSeconds", 10), ("failureThreshold", 3)):
                if kind in one:
                    one[kind].setdefault(key, value)
    sources = [{"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}}]
    volumes = [*own, {"name": token["name"], "projected": {"sources": sources}}]
    for volume in volumes:
        for kind in ("configMap", "secret", "projected"):
            if kind in volume:
                volume[kind].setdefault("defaultMode", 420)
    spec["volumes"] = volumes
    spec |= {"dnsPolicy": spec.get("dnsPolicy", "ClusterFirst"), "securityContext": spec.get("securityContext", {})}
    return pod
