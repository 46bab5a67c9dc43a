//! Body modes: how Envoy shows us bodies, and how it wants to be answered.

use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3::{
    ProcessingMode,
    processing_mode::{BodySendMode, HeaderSendMode},
};
use envoy_types::pb::envoy::service::ext_proc::v3::ProtocolConfiguration;

/// How one direction's body is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyMode {
    /// Not at all.
    None,
    /// In pieces that wait for an answer each.
    Streamed,
    /// Whole, in one message.
    Buffered,
    /// Its beginning, in one message.
    BufferedPartial,
    /// In pieces that do not wait; whatever we do not send back is gone.
    Duplex,
}

impl BodyMode {
    fn from_wire(mode: i32) -> Self {
        match BodySendMode::try_from(mode) {
            Ok(BodySendMode::Streamed) => Self::Streamed,
            Ok(BodySendMode::Buffered) => Self::Buffered,
            Ok(BodySendMode::BufferedPartial) => Self::BufferedPartial,
            Ok(BodySendMode::None) => Self::None,
            // Full duplex, and modes newer than we know: Envoy's `GRPC` takes streamed pieces as well.
            _ => Self::Duplex,
        }
    }

    fn to_wire(self) -> i32 {
        let mode = match self {
            Self::None => BodySendMode::None,
            Self::Streamed => BodySendMode::Streamed,
            Self::Buffered => BodySendMode::Buffered,
            Self::BufferedPartial => BodySendMode::BufferedPartial,
            Self::Duplex => BodySendMode::FullDuplexStreamed,
        };
        mode.into()
    }
}

/// Both directions, as the first message of a stream tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Modes {
    pub(super) request: BodyMode,
    pub(super) response: BodyMode,
    /// `STREAMED` only: body pieces come while the headers still wait for their answer.
    pub(super) body_before_answer: bool,
    /// Told by Envoy, not assumed.
    pub(super) told: bool,
}

impl Modes {
    /// What an Envoy too old to tell is taken to do.
    pub(super) const ASSUMED: Self =
        Self { request: BodyMode::Buffered, response: BodyMode::None, body_before_answer: false, told: false };

    pub(super) fn read(config: Option<&ProtocolConfiguration>) -> Self {
        config.map_or(Self::ASSUMED, |config| {
            let request = BodyMode::from_wire(config.request_body_mode);
            Self {
                request,
                response: BodyMode::from_wire(config.response_body_mode),
                // Envoy sends the flag whatever the mode; it means something in this one only.
                body_before_answer: config.send_body_without_waiting_for_header_response
                    && request == BodyMode::Streamed,
                told: true,
            }
        })
    }

    /// An override that keeps our stream open to the end of the exchange. An override replaces the body modes as
    /// well, so they are repeated, the request's as `request`. `None` where Envoy would ignore it.
    pub(super) fn hold_stream(self, request: BodyMode) -> Option<ProcessingMode> {
        self.keep_open(request, self.response)
    }

    /// An override, in the answer to the response headers, that shows us the response body in pieces. `None` where it
    /// is shown anyhow, or where Envoy would ignore it.
    pub(super) fn show_response(self) -> Option<ProcessingMode> {
        if self.response == BodyMode::None { self.keep_open(self.request, BodyMode::Streamed) } else { None }
    }

    fn keep_open(self, request: BodyMode, response: BodyMode) -> Option<ProcessingMode> {
        (self.told && self.request != BodyMode::Duplex && !self.body_before_answer).then(|| ProcessingMode {
            request_header_mode: HeaderSendMode::Default.into(),
            response_header_mode: HeaderSendMode::Send.into(),
            request_body_mode: request.to_wire(),
            response_body_mode: response.to_wire(),
            request_trailer_mode: HeaderSendMode::Skip.into(),
            response_trailer_mode: HeaderSendMode::Send.into(),
        })
    }

    /// An override that lets the rest of an exchange pass without us.
    pub(super) fn let_pass(self) -> Option<ProcessingMode> {
        (self.told && self.request != BodyMode::Duplex && !self.body_before_answer).then(|| ProcessingMode {
            request_header_mode: HeaderSendMode::Default.into(),
            response_header_mode: HeaderSendMode::Skip.into(),
            request_body_mode: BodySendMode::None.into(),
            response_body_mode: BodySendMode::None.into(),
            request_trailer_mode: HeaderSendMode::Skip.into(),
            response_trailer_mode: HeaderSendMode::Skip.into(),
        })
    }
}
