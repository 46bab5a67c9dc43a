//! Discovery against a real API server. Opt-in: `make test-kube` builds it and runs this.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common_kube;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use fairlead::config::KubernetesDiscovery;
use fairlead_lab::harness::{Child, Folder, free_address};
use fairlead_lab::kube::{Pod, custom};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use common_kube::{address, pod, soon, spread, watch};

/// Longest wait for a server to start.
const START: Duration = Duration::from_secs(90);

/// etcd and the API server.
struct Cluster {
    folder: Folder,
    programs: PathBuf,
    server: Option<Child>,
    _etcd: Child,
    etcd_url: String,
    address: SocketAddr,
}

fn sh(folder: &Path, script: &str) {
    let done = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
}

/// An authority, a certificate of the server, a key for service accounts.
const CERTIFICATES: &str = "
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=test-ca -days 2
openssl req -newkey rsa:2048 -nodes -keyout srv.key -out srv.csr -subj /CN=kube-apiserver
printf 'subjectAltName=IP:127.0.0.1' > san
openssl x509 -req -in srv.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out srv.crt -days 2 -extfile san
openssl genrsa -out sa.key 2048
printf 'admin-token,admin,1,\"system:masters\"\nreader-token,reader,2\n' > tokens.csv";

impl Cluster {
    async fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "told by make")]
        let programs = std::env::var("FAIRLEAD_KUBE").map_err(|_| "run `make test-kube`").unwrap();
        let (folder, programs) = (Folder::temporary().unwrap(), PathBuf::from(programs));
        sh(folder.path(), CERTIFICATES);
        let [client, peer] = [free_address().unwrap(), free_address().unwrap()].map(|at| format!("http://{at}"));
        let data = folder.join("etcd").display().to_string();
        let cluster = format!("default={peer}");
        let arguments = [
            ["--data-dir", &data],
            ["--listen-client-urls", &client],
            ["--advertise-client-urls", &client],
            ["--listen-peer-urls", &peer],
            ["--initial-advertise-peer-urls", &peer],
            ["--initial-cluster", &cluster],
        ]
        .concat();
        let log = folder.join("etcd.log");
        let mut etcd = Child::spawn("etcd", &programs.join("etcd"), &arguments, &log).unwrap();
        etcd.wait_ready(&format!("{client}/health"), START).await.unwrap();
        let address = free_address().unwrap();
        let mut cluster = Self { folder, programs, server: None, _etcd: etcd, etcd_url: client, address };
        cluster.start_server().await;
        cluster
    }

    async fn start_server(&mut self) {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut arguments = vec![
            format!("--etcd-servers={}", self.etcd_url),
            format!("--secure-port={}", self.address.port()),
            format!("--cert-dir={}", self.folder.path().display()),
        ];
        for (flag, file) in [
            ("--tls-cert-file", "srv.crt"),
            ("--tls-private-key-file", "srv.key"),
            ("--token-auth-file", "tokens.csv"),
            ("--service-account-signing-key-file", "sa.key"),
            ("--service-account-key-file", "sa.key"),
        ] {
            arguments.push(format!("{flag}={}", at(file)));
        }
        let fixed = "--bind-address=127.0.0.1 --advertise-address=127.0.0.1 --authorization-mode=RBAC \
            --service-account-issuer=https://kubernetes.default.svc --api-audiences=test \
            --service-cluster-ip-range=10.0.0.0/24 --disable-admission-plugins=ServiceAccount";
        arguments.extend(fixed.split_whitespace().map(str::to_owned));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let (program, log) = (self.programs.join("kube-apiserver"), self.folder.join("apiserver.log"));
        self.server = Some(Child::spawn("kube-apiserver", &program, &arguments, &log).unwrap());
        let ready = tokio::time::timeout(START, async {
            let client = self.client("admin-token").await;
            while client.apiserver_version().await.is_err() || !self.has_defaults(&client).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(ready.await.is_ok(), "the API server is not ready; see {}", log.display());
    }

    /// Its own objects come some time after it answers.
    async fn has_defaults(&self, client: &kube::Client) -> bool {
        api(client, "", "v1", "Namespace", "namespaces", None).get("default").await.is_ok()
    }

    fn kubeconfig(&self, token: &str) -> String {
        let (server, ca) = (self.address, self.folder.join("ca.crt"));
        let cluster = json!({ "server": format!("https://{server}"), "certificate-authority": ca });
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "t",
            "clusters": [{ "name": "c", "cluster": cluster }],
            "users": [{ "name": "u", "user": { "token": token } }],
            "contexts": [{ "name": "t", "context": { "cluster": "c", "user": "u", "namespace": "default" } }],
        })
        .to_string()
    }

    async fn client(&self, token: &str) -> kube::Client {
        let kubeconfig = Kubeconfig::from_yaml(&self.kubeconfig(token)).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        kube::Client::try_from(config).unwrap()
    }
}

fn api(
    client: &kube::Client,
    group: &str,
    version: &str,
    kind: &str,
    plural: &str,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    let of = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &of),
        None => Api::all_with(client.clone(), &of),
    }
}

async fn create(api: &Api<DynamicObject>, object: Value) {
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

/// A kind of custom object that takes anything, with a status of its own.
fn definition(group: &str, version: &str, kind: &str, plural: &str) -> Value {
    let schema = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": format!("{plural}.{group}"),
            "annotations": { "api-approved.kubernetes.io": "unapproved, a test" } },
        "spec": { "group": group, "scope": "Namespaced",
            "names": { "kind": kind, "plural": plural, "singular": kind.to_lowercase() },
            "versions": [{ "name": version, "served": true, "storage": true, "schema": schema }] },
    })
}

const POOLS: (&str, &str, &str, &str) = ("inference.networking.k8s.io", "v1", "InferencePool", "inferencepools");

/// What the reader may do is all that discovery needs.
async fn prepare(client: &kube::Client) {
    let (group, version, kind, plural) = POOLS;
    let definitions =
        api(client, "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", None);
    create(&definitions, definition(group, version, kind, plural)).await;
    let rules = json!([
        { "apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"] },
        { "apiGroups": [group], "resources": [plural], "verbs": ["list", "watch"] },
    ]);
    let rbac = "rbac.authorization.k8s.io";
    create(
        &api(client, rbac, "v1", "ClusterRole", "clusterroles", None),
        json!({ "metadata": { "name": "reader" }, "rules": rules }),
    )
    .await;
    create(
        &api(client, rbac, "v1", "ClusterRoleBinding", "clusterrolebindings", None),
        json!({ "metadata": { "name": "reader" },
            "roleRef": { "apiGroup": rbac, "kind": "ClusterRole", "name": "reader" },
            "subjects": [{ "kind": "User", "apiGroup": rbac, "name": "reader" }] }),
    )
    .await;
}

struct Pods(Api<DynamicObject>);

impl Pods {
    /// Makes the pod, then tells its status, as a kubelet would.
    async fn put(&self, pod: &Pod) -> Instant {
        let mut object = pod.object();
        let metadata = object.pointer_mut("/metadata").unwrap().as_object_mut().unwrap();
        for server in ["uid", "creationTimestamp", "deletionTimestamp", "managedFields"] {
            metadata.remove(server);
        }
        // It stays while it is being deleted, as one that drains does.
        metadata.insert("finalizers".to_owned(), json!(["test/drains"]));
        let status = json!({ "status": object.pointer("/status").unwrap() });
        if self.0.get_opt(&pod.name).await.unwrap().is_none() {
            create(&self.0, object).await;
        }
        let since = Instant::now();
        self.0.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(status)).await.unwrap();
        since
    }

    async fn delete(&self, name: &str) -> Instant {
        let since = Instant::now();
        self.0.delete(name, &DeleteParams::default()).await.unwrap();
        since
    }

    async fn let_go(&self, name: &str) {
        let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
        self.0.patch(name, &PatchParams::default(), &none).await.unwrap();
        self.0.delete(name, &DeleteParams::default().grace_period(0)).await.ok();
    }
}

#[tokio::test]
#[ignore = "needs a real kube-apiserver: make test-kube"]
async fn a_real_api_server_is_followed_with_no_more_rights_than_needed() {
    let mut cluster = Cluster::start().await;
    let admin = cluster.client("admin-token").await;
    tell_version(&admin).await;
    prepare(&admin).await;
    let pods = Pods(api(&admin, "", "v1", "Pod", "pods", Some("default")));
    let pools = api(&admin, POOLS.0, POOLS.1, POOLS.2, POOLS.3, Some("default"));
    let kubeconfig = cluster.folder.join("kubeconfig");
    std::fs::write(&kubeconfig, cluster.kubeconfig("reader-token")).unwrap();
    pods.put(&pod(0)).await;
    let config = KubernetesDiscovery {
        kubeconfig: Some(kubeconfig),
        namespaces: Some("default".into()),
        pools: "pool".into(),
        watch_timeout: Duration::from_secs(5),
        ..KubernetesDiscovery::default()
    };
    // ModelAdapters are neither known to the cluster nor the reader's to read.
    let watching = watch(config).await;
    watching.has([address(0)]).await;
    let (ready, detail) = watching.status.readiness();
    assert!(!ready && detail.contains("default/pool"), "{detail}");

    let spec = json!({ "selector": { "matchLabels": { "app": "x" } }, "targetPorts": [{ "number": 9000 }] });
    let mut pool = custom("InferencePool", "default", "pool", &spec, &json!({}));
    pool.as_object_mut().unwrap().insert("apiVersion".to_owned(), json!("inference.networking.k8s.io/v1"));
    create(&pools, pool).await;
    soon("the pool is known", || watching.status.readiness().0).await;
    let unlabelled = Pod { model: None, ..pod(1) };
    pods.put(&unlabelled.label("app", "x")).await;
    let of_pool = SocketAddr::new(address(1).ip(), 9000);
    watching.has([address(0), of_pool]).await;

    let (mut came, mut went) = (Vec::new(), Vec::new());
    for number in 10..40 {
        pods.put(&pod(number).ready(false)).await;
        let since = pods.put(&pod(number)).await;
        soon("it is there", || watching.reader.load().at(address(number)).is_some()).await;
        came.push(since.elapsed());
        let name = pod(number).name;
        let since = pods.delete(&name).await;
        soon("it is gone", || watching.reader.load().at(address(number)).is_none()).await;
        went.push(since.elapsed());
        pods.let_go(&name).await;
    }
    eprintln!("Ready (its request included) to snapshot: {}", spread(came));
    eprintln!("deletion (its request included) to snapshot: {}", spread(went));

    // The server goes away, and forgets its history.
    cluster.server.take().unwrap().kill().unwrap();
    soon("it is noticed", || watching.status.readiness().1.contains("last known")).await;
    assert_eq!(watching.reader.load().endpoints().len(), 2);
    let (_, listings) = watching.counts();
    cluster.start_server().await;
    let admin = cluster.client("admin-token").await;
    let pods = Pods(api(&admin, "", "v1", "Pod", "pods", Some("default")));
    pods.put(&pod(50)).await;
    pods.let_go(&pod(0).name).await;
    watching.has([of_pool, address(50)]).await;
    let (errors, now) = watching.counts();
    eprintln!("after a restart of the API server: {} more listings, {errors} errors in all", now - listings);
    assert!(watching.status.readiness().0);
}

async fn tell_version(client: &kube::Client) {
    let version = client.apiserver_version().await.unwrap();
    eprintln!("API server {}.{} ({})", version.major, version.minor, version.git_version);
}
