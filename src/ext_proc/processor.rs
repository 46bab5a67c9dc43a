//! What answers new streams; a reload of the configuration replaces it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_server::{ExternalProcessorServer, SERVICE_NAME};
use tonic::codegen::{BoxFuture, Service as HttpService};
use tonic::server::NamedService;

use crate::config::Config;
use crate::exchange::Core;

use super::driver::Service;
use super::settings::Settings;

/// Bytes above the largest body that one message may have, so that a body somewhat too large gets our 413 and not a
/// broken stream. Envoy's own buffer limit ends what is larger still.
const MESSAGE_SLACK_BYTES: usize = 17 << 20;

/// A handle on the newest service. A stream is answered to its end by the one that it began with.
#[derive(Clone)]
pub struct Processor(Arc<ArcSwap<Current>>);

struct Current {
    settings: Arc<Settings>,
    message_bytes_max: usize,
    server: ExternalProcessorServer<Service>,
}

impl std::fmt::Debug for Processor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let current = self.0.load();
        let (settings, most) = (&current.settings, &current.message_bytes_max);
        f.debug_struct("Processor").field("settings", settings).field("message_bytes_max", most).finish_non_exhaustive()
    }
}

impl Processor {
    /// Answers by this core and this configuration until they are replaced.
    pub fn new(core: Arc<Core>, config: &Config) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(Current::new(core, config))))
    }

    /// Answers streams that begin from now on by another core and configuration.
    pub fn replace(&self, core: Arc<Core>, config: &Config) {
        self.0.store(Arc::new(Current::new(core, config)));
    }
}

impl Current {
    fn new(core: Arc<Core>, config: &Config) -> Self {
        let message_bytes_max = config.limits.body_bytes_max.saturating_add(MESSAGE_SLACK_BYTES);
        let settings = Arc::new(Settings::from(config));
        let server = ExternalProcessorServer::new(Service { core, settings: Arc::clone(&settings) })
            .max_decoding_message_size(message_bytes_max)
            .max_encoding_message_size(message_bytes_max);
        Self { settings, message_bytes_max, server }
    }
}

impl NamedService for Processor {
    const NAME: &'static str = SERVICE_NAME;
}

impl HttpService<http::Request<tonic::body::Body>> for Processor {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        self.0.load().server.clone().call(request)
    }
}
