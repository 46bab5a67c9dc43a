//! One gRPC stream: polls the machine's inputs, sends its outputs. No task, no channel; dropping it is the end.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use envoy_types::pb::envoy::service::ext_proc::v3::{
    ProcessingRequest, ProcessingResponse, external_processor_server::ExternalProcessor,
};
use futures_util::Stream;
use tokio::time::Sleep;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::exchange::Core;
use crate::telemetry::Metrics;

use super::machine::{Flow, Machine, TimeLimit};
use super::settings::Settings;

/// gRPC metadata in which a route names its pool (`grpc_initial_metadata` of Envoy's per-route overrides).
const POOL: &str = "x-fairlead-pool";

/// The gRPC service. One per serving thread; all share the core.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) core: Arc<Core>,
    pub(super) settings: Arc<Settings>,
}

#[tonic::async_trait]
impl ExternalProcessor for Service {
    type ProcessStream = Session;

    async fn process(
        &self,
        request: Request<Streaming<ProcessingRequest>>,
    ) -> Result<Response<Self::ProcessStream>, Status> {
        let mut machine = Machine::new(Arc::clone(&self.core), Arc::clone(&self.settings));
        if let Some(pool) = request.metadata().get(POOL) {
            machine.route_to_pool(&String::from_utf8_lossy(pool.as_bytes()));
        }
        let open = OpenStream::count(Arc::clone(&self.core.metrics));
        Ok(Response::new(Session { inbound: request.into_inner(), machine, timer: None, limit: None, _open: open }))
    }
}

/// Counts a stream in and, on drop, out.
#[derive(Debug)]
struct OpenStream(Arc<Metrics>);

impl OpenStream {
    fn count(metrics: Arc<Metrics>) -> Self {
        metrics.stream_opened();
        Self(metrics)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.stream_closed();
    }
}

/// One stream, which is one HTTP exchange. Envoy ends every stream with a reset, normal or not, so what has to happen
/// at the end happens in the machine's drop.
#[derive(Debug)]
pub(super) struct Session {
    inbound: Streaming<ProcessingRequest>,
    machine: Machine,
    /// Runs while the machine has a time limit.
    timer: Option<Pin<Box<Sleep>>>,
    /// The limit that the timer was set for.
    limit: Option<TimeLimit>,
    _open: OpenStream,
}

impl Session {
    /// Keeps the timer in step with the machine's phase, and tells whether it ran out.
    fn poll_time_limit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.machine.time_limit();
        if limit != self.limit {
            self.limit = limit;
            self.timer = limit.map(|limit| Box::pin(tokio::time::sleep(limit.after)));
        }
        let Some(timer) = &mut self.timer else { return Poll::Pending };
        let ran_out = timer.as_mut().poll(context);
        if ran_out.is_ready() {
            // A timer that ran out stays so at every poll.
            self.timer = None;
        }
        ran_out
    }
}

impl Stream for Session {
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let session = &mut *self;
        loop {
            if let Some(reply) = session.machine.next_reply() {
                return Poll::Ready(Some(Ok(reply)));
            }
            if session.machine.flow() == Flow::Close {
                return Poll::Ready(None);
            }
            match Pin::new(&mut session.inbound).poll_next(context) {
                Poll::Ready(Some(Ok(message))) => {
                    session.machine.on_message(message);
                    continue;
                }
                // A message that cannot be taken ends the stream as a fault, so that Envoy does not go on unseen.
                Poll::Ready(Some(Err(status))) => {
                    if matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted) {
                        session.machine.unreadable_message();
                    }
                    return Poll::Ready(Some(Err(status)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            if session.machine.waiting().is_some_and(|wait| wait.poll_resumed(context).is_ready()) {
                session.machine.resume();
            } else if session.poll_time_limit(context).is_ready() {
                session.machine.time_out();
            } else {
                return Poll::Pending;
            }
        }
    }
}
