//! A real Envoy that speaks TLS to Fairlead and says among whom to choose.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common_life;

use std::time::Duration;

use common_life::{CONFIG, QUICKSTART, ask, engine, fairlead, soon, stack_knows, stream};
use fairlead_lab::harness::{StackBuilder, free_address};

const TLS: &str = "    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        \"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context: { alpn_protocols: [h2] }
";
const HINT: &str = "          - name: envoy.filters.http.set_metadata
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config
              metadata:
              - metadata_namespace: envoy.lb.subset_hint
                value: { x-gateway-destination-endpoint-subset: [SUBSET] }
";

/// The quickstart's Envoy with TLS to Fairlead at `port`, and a hint that names `subset`.
fn envoy(port: u16, subset: &str) -> String {
    let replaced = [
        ("port_value: 10000", "port_value: {envoy_port}".to_owned()),
        ("port_value: 9901", "port_value: {envoy_admin_port}".to_owned()),
        ("run/eds", "{eds_folder}".to_owned()),
        ("pipe: { path: run/ext_proc.sock }", format!("socket_address: {{ address: 127.0.0.1, port_value: {port} }}")),
        ("    # Matters with several replicas", format!("{TLS}    # Matters with several replicas")),
        (
            "          - name: envoy.filters.http.ext_proc\n",
            format!("{HINT}          - name: envoy.filters.http.ext_proc\n"),
        ),
        (
            "forwarding_namespaces: { untyped: [envoy.lb] }",
            "forwarding_namespaces: { untyped: [envoy.lb, envoy.lb.subset_hint] }".to_owned(),
        ),
        ("[SUBSET]", subset.to_owned()),
    ];
    replaced.iter().fold(QUICKSTART.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replace(from, to)
    })
}

async fn served_by(subset: &str, more: &str) -> Vec<(u16, String)> {
    let address = free_address().unwrap();
    let config = format!(
        "{}{more}",
        CONFIG.replace("listen:\n", "listen:\n  tls: required\n").replace("unix:{ext_proc}", &address.to_string())
    );
    let stack = StackBuilder::new(fairlead(config), envoy(address.port(), subset)).engines(3, &engine());
    let stack = Box::pin(stack.start()).await.unwrap();
    stack_knows(&stack, 3).await;
    let mut served = Vec::new();
    for _ in 0..6 {
        for answer in [ask(&stack, 4).await, stream(&stack, 4).await] {
            served.push((answer.status, answer.engine()));
        }
    }
    soon("nothing in flight", async || common_life::rows(&stack).await.iter().all(|row| row.in_flight == 0)).await;
    tokio::time::timeout(Duration::from_secs(20), stack.stop()).await.unwrap().unwrap();
    served
}

#[tokio::test]
async fn a_subset_that_envoy_names_is_kept_to_over_tls() {
    let served = Box::pin(served_by(r#"["{engine1}"]"#, "")).await;
    assert!(served.iter().all(|(status, engine)| *status == 200 && engine == "engine-1"), "{served:?}");
}

#[tokio::test]
async fn a_subset_of_strangers_is_refused_over_tls() {
    let served = Box::pin(served_by(r#""192.0.2.1:8000,192.0.2.2:8000""#, "")).await;
    assert!(served.iter().all(|(status, engine)| *status == 503 && engine.is_empty()), "{served:?}");
}
