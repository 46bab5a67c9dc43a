//! The stack with a real Envoy and the no-op service.

use fairlead_lab::engine::EngineOptions;
use fairlead_lab::harness::{ExtProc, StackBuilder};
use fairlead_lab::load::{self, LoadOptions};

#[tokio::test]
async fn a_stack_with_the_no_op_service_serves_through_envoy() {
    let options = EngineOptions { fast: true, ..EngineOptions::default() };
    let stack = StackBuilder::new(ExtProc::Noop { target: None }, include_str!("../fixtures/envoy.yaml"))
        .engines(2, &options)
        .eds_service("engines")
        .start()
        .await
        .unwrap();
    let report = load::run(LoadOptions {
        url: stack.envoy_url(),
        requests: Some(50),
        stream_share: 0.5,
        ..LoadOptions::default()
    });
    let report = report.await.unwrap();
    assert_eq!((report.ok, report.failed), (50, 0), "{:?}", report.failures);
    assert_eq!(report.endpoints.len(), 2);
    stack.stop().await.unwrap();
}
