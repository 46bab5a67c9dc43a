//! One Fairlead for several pools: a real Envoy's routes name the pool, and no client can.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod common_life;

use std::collections::BTreeSet;

use common_life::{CONFIG, DUPLEX, MODEL, QUICKSTART, engine, fairlead, post_body, settle, soon};
use fairlead_lab::harness::{Stack, StackBuilder};

/// Two ways for a route to name its pool: metadata that a filter sets, and gRPC metadata of the picker's stream.
const SETS: &str = "envoy.filters.http.set_metadata:
                    \"@type\": type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config
                    metadata: [{ metadata_namespace: fairlead, value: { pool: POOL } }]";
const SAYS: &str = "envoy.filters.http.ext_proc:
                    \"@type\": type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExtProcPerRoute
                    overrides: { grpc_initial_metadata: [{ key: x-fairlead-pool, value: POOL }] }";

const ENDPOINTS: &str = "\
- { address: \"{engine0}\", pools: [chat] }
- { address: \"{engine1}\", pools: [chat, batch] }
- { address: \"{engine2}\", pools: [batch] }
";

/// The configuration with a route for each pool and way; header `x-route` chooses among them.
fn envoy(config: &str) -> String {
    let route = |name: &str, filter: &str, pool: &str| {
        let filter = filter.replace("POOL", pool);
        format!(
            "              - match: {{ prefix: \"/\", headers: [{{ name: x-route, string_match: {{ exact: {name} }} }}] }}
                typed_per_filter_config:
                  {filter}
                route: {{ cluster: fairlead }}
"
        )
    };
    let routes = [
        route("chat", SETS, "chat"),
        route("batch", SETS, "batch"),
        route("said", SAYS, "batch"),
        route("closed", SETS, "closed"),
        route("number", SETS, "7"),
    ];
    let filter = "          - name: envoy.filters.http.set_metadata
            typed_config:
              \"@type\": type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config
";
    let replaced = [
        (
            "              - match: { prefix: \"/\" }\n",
            format!("{}              - match: {{ prefix: \"/\" }}\n", routes.concat()),
        ),
        ("          http_filters:\n", format!("          http_filters:\n{filter}")),
        (
            "forwarding_namespaces: { untyped: [envoy.lb] }",
            "forwarding_namespaces: { untyped: [envoy.lb, fairlead] }".to_owned(),
        ),
    ];
    replaced.iter().fold(config.to_owned(), |text, (from, to)| {
        assert!(text.contains(from), "{from}");
        text.replacen(from, to, 1)
    })
}

/// Who served requests through a route, or the status and reason of a refusal.
async fn served(stack: &Stack, route: &str) -> BTreeSet<String> {
    let body = format!(r#"{{"model":"{MODEL}","max_tokens":2,"messages":[{{"role":"user","content":"hi"}}]}}"#);
    let forged = [("x-route", route), ("x-fairlead-pool", "batch"), ("fairlead", "batch")];
    let mut served = BTreeSet::new();
    for _ in 0..24 {
        let answer = post_body(&stack.envoy_url(), &forged, body.clone()).await.finish().await;
        let said = if answer.status == 200 { answer.engine() } else { format!("{} {}", answer.status, answer.text()) };
        served.insert(said);
    }
    served
}

async fn routes_keep_to_their_pools(config: &str) {
    let ours = CONFIG.replace("destination:", "routing: { algorithm: random }\ndestination:");
    let stack = StackBuilder::quickstart(fairlead(ours), envoy(config)).engines(3, &engine());
    let stack = Box::pin(stack.start()).await.unwrap();
    let addresses: Vec<_> = stack.engines().iter().map(|engine| engine.address().to_string()).collect();
    let list = (0..)
        .zip(&addresses)
        .fold(ENDPOINTS.to_owned(), |text, (at, address)| text.replace(&format!("{{engine{at}}}"), address));
    stack.write_endpoints(&list).unwrap();
    soon("the pools are known", async || served(&stack, "batch").await.len() == 2).await;
    let engines = |names: &[usize]| names.iter().map(|at| format!("engine-{at}")).collect::<BTreeSet<_>>();
    assert_eq!(served(&stack, "chat").await, engines(&[0, 1]));
    assert_eq!(served(&stack, "batch").await, engines(&[1, 2]));
    assert_eq!(served(&stack, "said").await, engines(&[1, 2]));
    assert_eq!(served(&stack, "").await, engines(&[0, 1, 2]), "a route that names none has all");
    let closed = served(&stack, "closed").await;
    assert_eq!(closed.len(), 1);
    assert!(closed.iter().all(|said| said.starts_with("503") && said.contains("in pool `closed`")), "{closed:?}");
    let number = served(&stack, "number").await;
    assert!(number.iter().all(|said| said.starts_with("503")), "what is no name opens no pool: {number:?}");
    settle(&stack).await;
    stack.stop().await.unwrap();
}

#[tokio::test]
async fn routes_keep_to_their_pools_with_buffered_bodies() {
    Box::pin(routes_keep_to_their_pools(QUICKSTART)).await;
}

#[tokio::test]
async fn routes_keep_to_their_pools_in_duplex() {
    Box::pin(routes_keep_to_their_pools(DUPLEX)).await;
}
